//go:build linux

package cold

import (
	"testing"

	"github.com/peelfs/peel/internal/testkit"
)

// A workload is a command in a container of an image.
type workload struct {
	name      string
	layout    func(t testing.TB) string
	container testkit.Container
	want      string // part of the output
}

const solve = `import numpy
print(numpy.__version__, flush=True)
import scipy.linalg
a = numpy.arange(10000.0).reshape(100, 100) + 1000 * numpy.eye(100)
x = scipy.linalg.solve(a, numpy.ones(100))
print("residual", abs(a @ x - 1).max() < 1e-6)
`

const console = `require "rails"
%w(action_controller action_view action_mailer active_job).each { |r| require r + "/railtie" }
require "active_record"
puts Rails.version
$stdout.flush
class App < Rails::Application
  config.eager_load = false
  config.logger = Logger.new(nil)
  config.secret_key_base = "x" * 64
end
App.initialize!
require "rails/command"
require "rails/commands/console/console_command"
ARGV.clear
Rails::Console.start(App)
`

const commit = `set -e
git --version
mkdir /tmp/repository && cd /tmp/repository
git init -q .
for i in 1 2 3 4 5; do echo "line $i" > file$i; done
git add .
git -c user.name=a -c user.email=a@example.com commit -q -m first
git log --stat --format=%s | perl -MList::Util=sum -MData::Dumper -ne '$n += /file\d/; END { print "files $n\n" }'
`

const hello = `set -e
go version
mkdir /tmp/hello && cd /tmp/hello
printf 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("hello", "world") }\n' > main.go
printf 'module hello\n\ngo 1.19\n' > go.mod
go build -o hello .
./hello
`

const list = `set -e
find /srv/data -type f | wc -l
ls -lR /srv | tail -n 1
echo listed
`

// workloads are what the issue names.
func workloads() []workload {
	image := func(name string) func(testing.TB) string {
		return func(t testing.TB) string {
			t.Helper()
			return testkit.Workload(t, name)
		}
	}
	sh := func(script string, env ...string) testkit.Container {
		return testkit.Container{Args: []string{"/bin/sh", "-c", script}, Env: env}
	}
	return []workload{
		{"python", image("python"), testkit.Container{Args: []string{"/usr/bin/python3", "-c", solve}}, "residual True"},
		{"ruby", image("ruby"), testkit.Container{Args: []string{"/usr/bin/ruby", "-e", console}, Stdin: "puts 6*7\n"}, "42"},
		{"git", image("git"), sh(commit), "files 5"},
		{"go", image("go"), sh(hello, "GOCACHE=/tmp/cache", "GOFLAGS=-mod=mod", "GOTOOLCHAIN=local"), "hello world"},
		{"nginx", image("nginx"), testkit.Container{Args: []string{"/usr/sbin/nginx", "-t"}}, "test is successful"},
		{"files", image("files"), sh(list), "listed"},
	}
}
