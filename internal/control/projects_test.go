package control

import (
	"net/http/httptest"
	"testing"
)

// The Projects API of the stand-in for bedrock-mantle, which checks signatures and tags,
// takes what setup sends, once.
func TestProjectsOfMantle(t *testing.T) {
	s := newSetting(t)
	mantle := httptest.NewServer(s.world.Handler())
	t.Cleanup(mantle.Close)
	s.access.Mantle = mantle.URL
	s.good()
	found := of(s.audit(), "projects", Holds)
	if len(found) != 1 || s.projects.writes > 0 {
		t.Fatalf("after setup:%s", show(found))
	}
	s.declared.Applications[0].Tags["team"] = "search"
	if found := of(s.audit(), "projects", Fails); len(found) != 1 {
		t.Fatalf("with another tag:%s", show(found))
	}
	if _, err := s.setUp(); err != nil {
		t.Fatal(err)
	}
	again := of(s.audit(), "projects", Holds)
	if len(again) != 1 || again[0].Message != found[0].Message {
		t.Errorf("tagged anew:%s, and it was%s", show(again), show(found))
	}
}
