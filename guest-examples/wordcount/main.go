// Wordcount prints how often each word of its input occurs, as one JSON object.
//
// A word is a run of letters, digits and apostrophes, in lower case; the keys come sorted.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "wordcount:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(count(string(text)))
}

func count(text string) map[string]int {
	counts := make(map[string]int)
	for _, word := range strings.FieldsFunc(strings.ToLower(text), between) {
		// Apostrophes belong to a word only inside of it.
		if word = strings.Trim(word, "'’"); word != "" {
			counts[word]++
		}
	}
	return counts
}

// between reports whether r stands between words.
func between(r rune) bool {
	return !unicode.In(r, unicode.Letter, unicode.Mark, unicode.Number) && r != '\'' && r != '’'
}
