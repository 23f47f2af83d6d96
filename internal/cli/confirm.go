package cli

import (
	"bufio"
	"fmt"
	"strings"
)

// confirm asks before something that is not undone, and takes --yes for an
// answer.
func confirm(sys *System, yes bool, question string) error {
	if yes {
		return nil
	}
	fmt.Fprintf(sys.Stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(sys.Stdin).ReadString('\n')
	switch answer = strings.ToLower(strings.TrimSpace(answer)); {
	case answer == "y" || answer == "yes":
		return nil
	case err != nil && answer == "":
		fmt.Fprintln(sys.Stderr)
		return usagef("nobody answered, so nothing was done: say --yes where nobody can be asked")
	}
	fmt.Fprintln(sys.Stderr, "Nothing was done.")
	return errSilent
}
