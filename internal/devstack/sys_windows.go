package devstack

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

var (
	errLocked      = errors.New("locked by another process")
	errUnsupported = errors.New("the private PostgreSQL runs on Linux and macOS only: name a server with --postgres")
)

const (
	stopFast  = syscall.SIGINT
	stopQuick = syscall.SIGQUIT
	resume    = syscall.SIGTERM // stands for what Windows lacks
)

// On Windows there is no advisory lock of this kind; one process a directory is
// left to the user there.
func tryLock(*os.File) error { return nil }
func unlock(*os.File) error  { return nil }

func ownedByUs(os.FileInfo) bool { return false }

type account struct{}

func serverAccount(string) (*account, error)     { return nil, errUnsupported }
func (*account) reaches(string) bool             { return true }
func (*account) own(string) error                { return nil }
func (*account) dress(*exec.Cmd, syscall.Signal) {}
func signalPID(int, syscall.Signal) error        { return errUnsupported }
func serversOn(string) ([]int, error)            { return nil, errUnsupported }
