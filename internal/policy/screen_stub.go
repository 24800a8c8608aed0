package policy

type Finding struct{ Kind, Name string }

func Screen(value string) (Finding, bool) { return Finding{}, false }
