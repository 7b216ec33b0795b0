package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
)

func main() {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: go-program args|env|sum|tree|walk|gc|sleep|exit|panic ...")
		out.Flush()
		os.Exit(2)
	}
	switch os.Args[1] {
	case "args":
		json.NewEncoder(out).Encode(os.Args)
	case "env":
		env := os.Environ()
		sort.Strings(env)
		fmt.Fprintln(out, strings.Join(env, "\n"))
	case "sum":
		h := sha256.New()
		n, err := io.Copy(h, os.Stdin)
		fmt.Fprintf(out, "%d %x %v\n", n, h.Sum(nil), err)
	case "tree":
		for i := 0; i < 300; i++ {
			d := fmt.Sprintf("/w/d%d", i%7)
			os.MkdirAll(d, 0o755)
			if err := os.WriteFile(fmt.Sprintf("%s/f%d", d, i), []byte(strings.Repeat("x", i)), 0o644); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
		os.Symlink("d0/f0", "/w/link")
		os.Rename("/w/d1/f1", "/w/moved")
		os.Remove("/w/d2/f2")
		fmt.Fprintln(out, os.Remove("/w/d3"))
		_, err := os.Open("/w/nothing")
		fmt.Fprintln(out, err)
		_, err = os.Open("/etc/passwd")
		fmt.Fprintln(out, err)
		var files []*os.File
		for i := 0; i < 600; i++ {
			f, err := os.Open("/w/moved")
			if err != nil {
				fmt.Fprintln(out, "open", i, err)
				break
			}
			files = append(files, f)
		}
		fmt.Fprintln(out, len(files))
		fallthrough
	case "walk":
		var walk func(d string)
		walk = func(d string) {
			es, err := os.ReadDir(d)
			if err != nil {
				fmt.Fprintln(out, err)
			}
			for _, e := range es {
				i, _ := e.Info()
				fmt.Fprintln(out, d, e.Name(), e.IsDir(), i.Mode().Type(), map[bool]int64{true: 0, false: i.Size()}[e.IsDir()])
				if e.IsDir() {
					walk(d + "/" + e.Name())
				}
			}
		}
		walk("/w")
	case "gc":
		m := map[int][]byte{}
		for i := 0; i < 200000; i++ {
			m[i%1000] = make([]byte, i%5000)
		}
		c := make(chan int)
		for i := 0; i < 100; i++ {
			go func() { s := 0; for j := 0; j < 10000; j++ { s += j }; c <- s }()
		}
		s := 0
		for i := 0; i < 100; i++ {
			s += <-c
		}
		fmt.Fprintln(out, len(m), s)
	case "sleep":
		t := time.Now()
		for i := 0; i < 20; i++ {
			time.Sleep(5 * time.Millisecond)
		}
		fmt.Fprintln(out, time.Since(t) >= 100*time.Millisecond)
	case "exit":
		n, _ := strconv.Atoi(os.Args[2])
		out.Flush()
		os.Exit(n)
	case "panic":
		out.Flush()
		panic("on purpose")
	}
}
