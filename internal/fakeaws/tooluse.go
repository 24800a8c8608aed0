package fakeaws

import "encoding/json"

// force finds the tool that a body makes the model call: toolConfig of Converse, tools and
// tool_choice of Claude's own body. Where the choice is the model's, it answers in prose.
func (a *admitted) force(body []byte) *refusal {
	var b struct {
		ToolConfig struct {
			Tools []struct {
				ToolSpec struct {
					Name        string
					InputSchema struct{ JSON schema }
				}
			}
			ToolChoice struct {
				Any  *struct{}
				Tool struct{ Name string }
			}
		}
		Tools []struct {
			Name        string
			InputSchema schema `json:"input_schema"`
		}
		ToolChoice struct{ Type, Name string } `json:"tool_choice"`
	}
	_ = json.Unmarshal(body, &b) // what does not fit counts as absent
	g := &generation{seed: a.seed}
	for _, t := range b.ToolConfig.Tools {
		g.tools = append(g.tools, tool{t.ToolSpec.Name, t.ToolSpec.InputSchema.JSON})
	}
	for _, t := range b.Tools {
		g.tools = append(g.tools, tool{t.Name, t.InputSchema})
	}
	name := b.ToolConfig.ToolChoice.Tool.Name + b.ToolChoice.Name // one of them is empty
	if b.ToolConfig.ToolChoice.Any == nil && b.ToolChoice.Type != "any" && name == "" {
		return nil
	}
	if no := g.choose("required", name, true); no != nil {
		return no
	}
	a.called = g
	return nil
}

// content is what the answer of a Converse call says, and why it ends.
func (a *admitted) content(text string) (content []any, stopReason string) {
	if a.called == nil {
		return []any{obj{"text": text}}, "end_turn"
	}
	return []any{obj{"toolUse": obj{"toolUseId": a.called.id("tooluse_", 22), "name": a.called.calls.name, "input": json.RawMessage(a.called.arguments())}}}, "tool_use"
}

// claudeContent is the same in Claude's own words.
func (a *admitted) claudeContent(text string) (content []any, stopReason string) {
	if a.called == nil {
		return []any{obj{"type": "text", "text": text}}, "end_turn"
	}
	return []any{obj{"type": "tool_use", "id": a.called.id("toolu_bdrk_", 24), "name": a.called.calls.name, "input": json.RawMessage(a.called.arguments())}}, "tool_use"
}
