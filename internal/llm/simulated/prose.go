package simulated

import "strings"

// The words. Sentences are built so that none needs an article that depends on
// the word that follows it.
const (
	adjectives   = "quiet patient silver narrow early distant steady heavy bright careful slow hidden northern gentle deep ordinary honest restless winter green"
	nouns        = "river gate mill valley engineer lantern turbine channel harbour bridge notebook reservoir stone keeper wheel meadow current village spring clock"
	intransitive = "waits turns rises settles listens returns hums rests drifts begins holds brightens"
	transitive   = "carries follows measures remembers opens gathers answers guides crosses keeps mends watches"
	adverbs      = "slowly again quietly together twice gladly somewhere evenly soon carefully"
	prepositions = "beside above beyond under behind near below past"

	// A sentence a line. A capital stands for a word of its class, as in fill.
	templates = `the A N T the N P the A N
P the A N, the N I
every N T one N, and the A N I D
when the N I, the A N T the N
the N I D P the A N
no N T the A N before the N I
D, the A N T its own N
it is the N that T the A N, not the N
the A N I as one N T the N
there is one A N P the N, and it I D`
)

// lexicon holds the words by class; it never changes.
type lexicon struct {
	classes   [6][]string
	sentences [][]string // the templates' pieces
}

func newLexicon() *lexicon {
	l := &lexicon{}
	for i, words := range []string{adjectives, nouns, intransitive, transitive, adverbs, prepositions} {
		l.classes[i] = strings.Fields(words)
	}
	for line := range strings.Lines(templates) {
		l.sentences = append(l.sentences, strings.Fields(line))
	}
	return l
}

// fill gives the words that a piece of a template stands for, or nil for a
// word that stands for itself.
func (l *lexicon) fill(piece string) []string {
	switch piece[0] {
	case 'A':
		return l.classes[0]
	case 'N':
		return l.classes[1]
	case 'I':
		return l.classes[2]
	case 'T':
		return l.classes[3]
	case 'D':
		return l.classes[4]
	case 'P':
		return l.classes[5]
	default:
		return nil
	}
}

// prose says one answer, token by token. The same state says the same, and the
// first tokens do not depend on how many follow.
type prose struct {
	lex      *lexicon
	state    uint64
	total    int // tokens of the whole answer, whose last ends its sentence
	said     int
	sentence []string // pieces still to say
	left     int      // sentences left in the paragraph, this one included
}

// next appends the next token to buf: a word with the space, or the paragraph's
// break, before it and the punctuation after it.
func (p *prose) next(buf []byte) []byte {
	first := len(p.sentence) == 0
	if first {
		p.left--
		switch {
		case p.said == 0:
			p.left = 2 + p.draw(4)
		case p.left == 0:
			p.left = 2 + p.draw(4)
			buf = append(buf, "\n\n"...)
		default:
			buf = append(buf, ' ')
		}
		p.sentence = p.lex.sentences[p.draw(len(p.lex.sentences))]
	} else {
		buf = append(buf, ' ')
	}
	piece := p.sentence[0]
	p.sentence = p.sentence[1:]
	p.said++

	word, comma := strings.CutSuffix(piece, ",")
	if words := p.lex.fill(piece); words != nil {
		word = words[p.draw(len(words))]
	}
	start := len(buf)
	buf = append(buf, word...)
	if first {
		buf[start] -= 'a' - 'A' // every word begins with a small ASCII letter
	}
	switch {
	case len(p.sentence) == 0 || p.said == p.total:
		buf = append(buf, '.')
	case comma:
		buf = append(buf, ',')
	}
	return buf
}

// draw gives a number in [0, n), by splitmix64: fixed by its definition, so
// that a seed says the same in every build.
func (p *prose) draw(n int) int {
	p.state += 0x9e3779b97f4a7c15
	return int(mix(p.state) >> 33 % uint64(n)) //nolint:gosec // below n, which is an int
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
