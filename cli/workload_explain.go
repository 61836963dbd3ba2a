package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
)

func (a *app) workloadExplainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain W|REPLICA",
		Short: "Say why replicas are where they are, or nowhere",
		Args:  exactly("W|REPLICA"), ValidArgsFunction: a.completeWorkloads,
		RunE: a.ask(func(ctx context.Context, c *client.Client, p *printer, args []string) error {
			return runWorkloadExplain(ctx, args[0], c, p)
		}),
	}
}

func runWorkloadExplain(ctx context.Context, target string, c *client.Client, p *printer) error {
	e, err := c.Explain(ctx, target)
	if err != nil {
		return err
	}
	switch {
	case p.machine():
		return p.value(newExplanationJSON(e))
	case p.format == formatName:
		chosen := slices.DeleteFunc(slices.Clone(e.Verdicts), func(v api.Verdict) bool { return !v.Chosen })
		return printNames(p, chosen, verdictName)
	}
	if _, err := fmt.Fprintf(p.out, "%s\n\n", plain(e.Summary)); err != nil {
		return err
	}
	return printTable(p, e.Verdicts, verdictColumns(e.Verdicts))
}

type explanationJSON struct {
	Workload string        `json:"workload"`
	Replica  api.ReplicaID `json:"replica"`
	Summary  string        `json:"summary"`
	Verdicts []verdictJSON `json:"verdicts"`
}

type verdictJSON struct {
	Node     api.NodeID         `json:"node"`
	NodeName string             `json:"node_name"`
	Feasible bool               `json:"feasible"`
	Reasons  []string           `json:"reasons"`
	Terms    map[string]float64 `json:"terms"`
	Total    float64            `json:"total"`
	Chosen   bool               `json:"chosen"`
}

func newExplanationJSON(e api.Explanation) explanationJSON {
	return explanationJSON{e.Workload, e.Replica, e.Summary, array(e.Verdicts, func(v api.Verdict) verdictJSON {
		terms := v.Terms
		if terms == nil {
			terms = map[string]float64{}
		}
		return verdictJSON{v.Node, v.NodeName, v.Feasible, append([]string{}, v.Reasons...), terms, v.Total, v.Chosen}
	})}
}

func verdictName(v api.Verdict) string { return or(v.NodeName, shortID(v.Node)) }

// verdictColumns has a column for each term of the score that occurs.
func verdictColumns(verdicts []api.Verdict) []column[api.Verdict] {
	terms := map[string]bool{}
	for _, v := range verdicts {
		for term := range v.Terms {
			terms[term] = true
		}
	}
	columns := []column[api.Verdict]{
		{title: "NODE", text: func(_ *printer, v api.Verdict) string { return verdictName(v) }},
		{title: "VERDICT", text: func(_ *printer, v api.Verdict) string { return verdictText(v) }},
		{title: "SCORE", text: func(_ *printer, v api.Verdict) string { return score(v, v.Total) }},
	}
	for _, term := range slices.Sorted(maps.Keys(terms)) {
		columns = append(columns, column[api.Verdict]{
			title: strings.ToUpper(term),
			text:  func(_ *printer, v api.Verdict) string { return score(v, v.Terms[term]) },
		})
	}
	return append(columns, column[api.Verdict]{
		title: "WHY NOT",
		text:  func(_ *printer, v api.Verdict) string { return strings.Join(v.Reasons, "; ") },
	})
}

func verdictText(v api.Verdict) string {
	switch {
	case v.Chosen:
		return "chosen"
	case v.Feasible:
		return "possible"
	}
	return "impossible"
}

func score(v api.Verdict, value float64) string {
	if !v.Feasible {
		return none
	}
	return strconv.FormatFloat(value, 'f', 3, 64)
}
