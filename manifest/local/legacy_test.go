package local

import (
	"archive/tar"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// old are the members of a layer before Docker 1.10.
func old(id, parent, content string) []entry {
	said := fmt.Sprintf(`{"id":%q,"created":"2015-01-02T03:04:05Z","architecture":"amd64","os":"linux",`+
		`"container_config":{"Cmd":["/bin/sh","-c","make %s"]},"config":{"Env":["LAYER=%[2]s"]},"Size":7`, idOf(id), id)
	if parent != "" {
		said += fmt.Sprintf(`,"parent":%q`, idOf(parent))
	}
	return []entry{
		{idOf(id) + "/", "", tar.TypeDir},
		{name: idOf(id) + "/" + versionFile, content: "1.0"},
		{name: idOf(id) + "/" + jsonFile, content: said + "}"},
		{name: idOf(id) + "/" + layerFile, content: content},
	}
}

// repositories names the layers called ids.
func repositories(t testing.TB, ids ...string) entry {
	t.Helper()
	all := map[string]map[string]string{}
	for _, id := range ids {
		all[id] = map[string]string{"latest": idOf(id), "1.0": idOf(id)}
	}
	return entry{name: repositoriesFile, content: encoded(t, all)}
}

func join(parts ...[]entry) []entry {
	var all []entry
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func TestLegacy(t *testing.T) {
	t.Parallel()
	base, middle, top := layerOf(t, "base"), layerOf(t, "middle"), layerOf(t, "top")
	zipped := string(gz(t, []byte(top)))
	chained := join(old("base", "", base), old("middle", "base", middle), old("top", "middle", zipped))
	ids := []digest.Digest{digest.FromString(base), digest.FromString(middle), digest.FromString(top)}
	blobs := []digest.Digest{ids[0], ids[1], digest.FromString(zipped)}
	for _, tc := range []struct {
		name    string
		entries []entry
		within  string
		names   [][]string
	}{
		{"one image", join(chained, []entry{repositories(t, "top")}), "", [][]string{{"top:1.0", "top:latest"}}},
		{"by name", join(chained, []entry{repositories(t, "top", "middle")}), ":top", [][]string{{"middle:1.0", "middle:latest"}, {"top:1.0", "top:latest"}}},
		{"without names", chained, "", [][]string{{"@0"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := pack(t, tc.entries...)
			for _, at := range []string{"docker-archive:" + save(t, p), "docker-dir:" + untar(t, p)} {
				img, config := image(t, at+tc.within)
				if d := cmp.Diff(ids, config.DiffIDs()); d != "" {
					t.Error(d)
				}
				if d := cmp.Diff(blobs, blobsOf(img)); d != "" {
					t.Error(d)
				}
				var history []string
				for _, h := range config.History {
					history = append(history, h.CreatedBy)
				}
				if d := cmp.Diff([]string{"/bin/sh -c make base", "/bin/sh -c make middle", "/bin/sh -c make top"}, history); d != "" {
					t.Error(d)
				}
				if d := cmp.Diff([]string{"LAYER=top"}, config.Config.Env); d != "" || strings.Contains(string(config.Raw), `"id"`) {
					t.Errorf("%s\n%s", d, config.Raw)
				}
				list, err := List(t.Context(), parse(t, at), Options{})
				if err != nil {
					t.Fatal(err)
				}
				var names [][]string
				for _, e := range list {
					names = append(names, e.Names)
				}
				if d := cmp.Diff(tc.names, names); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

func TestLegacyErrors(t *testing.T) {
	t.Parallel()
	layer := layerOf(t, "x")
	id := idOf("top")
	change := func(name, content string) []entry {
		all := append(old("top", "", layer), repositories(t, "top"))
		for i := range all {
			if strings.HasSuffix(all[i].name, name) {
				all[i].content = content
			}
		}
		return all
	}
	var long []entry
	for i := range maxLayers + 1 {
		parent := ""
		if i > 0 {
			parent = fmt.Sprint(i - 1)
		}
		long = append(long, old(fmt.Sprint(i), parent, layer)...)
	}
	for _, tc := range []struct {
		name    string
		entries []entry
		want    string
	}{
		{"no layer", old("top", "", layer)[:3], `layer: malformed: entry "` + id + `/layer.tar" is missing`},
		{"no parent", join(old("top", "base", layer), []entry{repositories(t, "top")}), `entry "` + idOf("base") + `/json" is missing`},
		{"no topmost", []entry{repositories(t, "top")}, `entry "` + id + `/json" is missing`},
		{"circle", join(old("top", "base", layer), old("base", "top", layer), []entry{repositories(t, "top")}), `the layer is its own ancestor`},
		{"circle without names", join(old("top", "base", layer), old("base", "top", layer)), `there is no image in it`},
		{"too long", append(long, repositories(t, fmt.Sprint(maxLayers))), `has more than 512 ancestors`},
		{"version", change(versionFile, "2.0"), `VERSION" says "2.0", want 1.0`},
		{"no JSON", change(jsonFile, "{"), `/json": unexpected end of JSON`},
		{"another's JSON", change(jsonFile, `{"id":"x"}`), `/json" is about the layer "x"`},
		{"parent is no ID", change(jsonFile, `{"id":"`+id+`","parent":"../x"}`), `its parent "../x" is not the ID of a layer`},
		{"large JSON", change(jsonFile, strings.Repeat(" ", maxV1+1)), `has 1048577 bytes, more than 1048576`},
		{"repositories is no JSON", change(repositoriesFile, "["), "repositories: unexpected end"},
		{"repositories is a list", change(repositoriesFile, "[]"), "repositories: not an object"},
		{"repositories of paths", change(repositoriesFile, `{"a":{"b":"../../x"}}`), `repositories: "a": "b": "../../x" is not the ID of a layer`},
		{"damaged layer", change(layerFile, "\x1f\x8b\x08\x00damaged"), `/layer.tar": `},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := failure(t, "docker-archive:"+save(t, pack(t, tc.entries...)))
			if !strings.Contains(err.Error(), tc.want) || !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNotFound) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}
