// Running Debian's docker-registry for as long as someone needs it. Whoever starts "images serve" keeps its standard input open; when
// that closes, for whatever reason, the registry ends. It is not made to outlive anything.

package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

const (
	startDeadline = 30 * time.Second
	stopDeadline  = 5 * time.Second
)

func serve(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	program := flags.String("registry", "docker-registry", "the registry program")
	images := flags.String("images", "", "directory of the images")
	storage := flags.String("storage", "", "directory where the registry keeps what it was given")
	certs := flags.String("certs-dir", "", "directory to write a hosts.toml for each registry into")
	port := flags.Int("port", 0, "port on 127.0.0.1; 0 takes a free one")
	if err := parse(flags, args); err != nil {
		return err
	}
	s, err := openStore(*images)
	if err != nil {
		return err
	}
	r, err := startRegistry(ctx, *program, *storage, *port)
	if err != nil {
		return err
	}
	defer r.stop()
	if err := fill(ctx, r, s, *certs); err != nil {
		return err
	}
	return r.untilClosed(ctx, os.Stdin)
}

// fill prints the port last: who reads it may pull at once.
func fill(ctx context.Context, r *registry, s *store, certs string) error {
	if err := pushAll(ctx, s, r.address); err != nil {
		return err
	}
	if err := writeMirrors(certs, r.address, s); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(r.address)
	if err == nil {
		_, err = fmt.Println(port)
	}
	return err
}

type registry struct {
	command *exec.Cmd
	address string
	ended   chan struct{}
}

// startRegistry waits until the registry says where it listens, which it does when it can answer.
func startRegistry(ctx context.Context, program, storage string, port int) (*registry, error) {
	configuration, err := configure(storage, port)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(storage, "registry.log"))
	if err != nil {
		return nil, err
	}
	r := &registry{command: exec.Command(program, "serve", configuration), ended: make(chan struct{})}
	said, err := r.command.StderrPipe()
	if err != nil {
		return nil, err
	}
	r.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.start(); err != nil {
		return nil, fmt.Errorf("cannot start %s, of Debian's package docker-registry: %w", program, err)
	}
	if err := r.listen(ctx, io.TeeReader(said, log)); err != nil {
		r.stop()
		return nil, fmt.Errorf("%w; its log is %s", err, log.Name())
	}
	return r, nil
}

// start keeps to one thread for the registry's whole life: the kernel sends the death signal when the thread that started a
// process ends, and Go ends threads as it likes.
func (r *registry) start() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := r.command.Start()
		started <- err
		if err == nil {
			_, _ = r.command.Process.Wait()
			close(r.ended)
		}
	}()
	return <-started
}

func configure(storage string, port int) (string, error) {
	if err := os.MkdirAll(storage, 0o755); err != nil {
		return "", err
	}
	text := fmt.Sprintf(`version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}, cache: {blobdescriptor: inmemory}}
http: {addr: "127.0.0.1:%d"}
`, filepath.Join(storage, "content"), port)
	path := filepath.Join(storage, "registry.yml")
	return path, replace(path, []byte(text))
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

// listen reads the log on to its end, in the background too: a registry that nobody reads stops in the middle of a line.
func (r *registry) listen(ctx context.Context, log io.Reader) error {
	found := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if match := listening.FindStringSubmatch(lines.Text()); match != nil {
				found <- match[1]
				break
			}
		}
		_, _ = io.Copy(io.Discard, log)
	}()
	select {
	case r.address = <-found:
		return nil
	case <-r.ended:
		return fmt.Errorf("the registry ended before it listened")
	case <-time.After(startDeadline):
		return fmt.Errorf("the registry did not listen within %s", startDeadline)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// untilClosed is content with an end by signal or by the closing of input; that the registry ends by itself is an error.
func (r *registry) untilClosed(ctx context.Context, input io.Reader) error {
	closed := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, input)
		close(closed)
	}()
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		return nil
	case <-r.ended:
		return fmt.Errorf("the registry ended by itself")
	}
}

func (r *registry) stop() {
	_ = r.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.ended:
	case <-time.After(stopDeadline):
		_ = r.command.Process.Kill()
		<-r.ended
	}
}
