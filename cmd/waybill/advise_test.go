package main

import (
	"bytes"
	"strings"
	"testing"
)

// On a terminal advise asks, by number or by name, and asks again what it did not understand.
func TestAdviseAsks(t *testing.T) {
	var out, talk bytes.Buffer
	if err := runAdvise(adviseOptions{output: "table"}, strings.NewReader("9\n1, prompts\nconverse\n"), true, &out, &talk); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"What do you want to know?", `"9" is none of them`, "Which APIs are called?"} {
		if !strings.Contains(talk.String(), want) {
			t.Errorf("it did not say %q:\n%s", want, talk.String())
		}
	}
	if got := out.String(); !strings.Contains(got, "take IAM principal + request metadata") || strings.Contains(got, "mantle-chat") {
		t.Errorf("the answer:\n%s", got)
	}
	if err := runAdvise(adviseOptions{output: "table"}, strings.NewReader(""), true, &out, &talk); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("nobody there: %v", err)
	}
}
