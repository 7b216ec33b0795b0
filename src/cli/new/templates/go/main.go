// {{name}} greets whoever is named on stdin, as GREETING in the environment says.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

const (
	nameBytesMax = 200
	exitUsage    = 2
)

var errUsage = fmt.Errorf("one name, please, of at most %d bytes", nameBytesMax)

func main() {
	err := run(os.Stdin, os.Stdout)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "{{name}}:", err)
	if errors.Is(err, errUsage) {
		os.Exit(exitUsage)
	}
	os.Exit(1)
}

func run(in io.Reader, out io.Writer) error {
	read, err := io.ReadAll(io.LimitReader(in, nameBytesMax+2))
	if err != nil {
		return err
	}
	name := strings.TrimSuffix(string(read), "\n")
	if len(name) > nameBytesMax || strings.Contains(name, "\n") {
		return errUsage
	}
	if name == "" {
		name = "World"
	}
	greeting, ok := os.LookupEnv("GREETING")
	if !ok {
		greeting = "Hello"
	}
	_, err = fmt.Fprintf(out, "%s, %s!\n", greeting, name)
	return err
}
