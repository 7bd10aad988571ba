// Renders chats with a Go template as Ollama does (template.go: Execute and collate): standard library only.
// stdin: [{"template": text, "chats": [[{"role": …, "content": …}, …], …]}, …]; stdout: [[text, …], …].
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type Case struct {
	Template string      `json:"template"`
	Chats    [][]Message `json:"chats"`
}

func collate(given []Message) (string, []*Message) {
	var system []string
	var out []*Message
	for i := range given {
		m := &given[i]
		if m.Role == "system" {
			system = append(system, m.Content)
		}
		if n := len(out); n > 0 && out[n-1].Role == m.Role && m.Role != "tool" {
			out[n-1].Content += "\n\n" + m.Content
		} else {
			out = append(out, m)
		}
	}
	return strings.Join(system, "\n\n"), out
}

func main() {
	var cases []Case
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	out := [][]string{}
	for _, c := range cases {
		t := template.Must(template.New("").Option("missingkey=zero").Parse(c.Template))
		texts := []string{}
		for _, chat := range c.Chats {
			system, messages := collate(chat)
			var b strings.Builder
			given := map[string]any{"System": system, "Messages": messages, "Tools": nil, "Response": "", "Think": false}
			if err := t.Execute(&b, given); err != nil {
				panic(err)
			}
			texts = append(texts, b.String())
		}
		out = append(out, texts)
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		panic(err)
	}
}
