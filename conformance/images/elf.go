// Which files a dynamically linked program needs, looked up in a tree of unpacked packages and not on this machine, whose
// libraries may be older or not there.

package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// closure lists the loader and all libraries that program needs, as paths under root without the program itself.
func closure(root, program string) ([]string, error) {
	loader, wanted, err := linkage(root, program)
	if err != nil {
		return nil, err
	}
	found := []string{loader}
	seen := map[string]bool{path.Base(loader): true}
	for len(wanted) > 0 {
		name := wanted[0]
		wanted = wanted[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		library, err := locate(root, name)
		if err != nil {
			return nil, fmt.Errorf("%s cannot be put into an image: %w", program, err)
		}
		_, more, err := linkage(root, library)
		if err != nil {
			return nil, err
		}
		found, wanted = append(found, library), append(wanted, more...)
	}
	slices.Sort(found)
	return found, nil
}

// linkage gives the loader (empty for a library) and the names of the libraries that the file asks for.
func linkage(root, name string) (loader string, libraries []string, err error) {
	body, err := readBeneath(root, name)
	if err != nil {
		return "", nil, err
	}
	file, err := elf.NewFile(bytes.NewReader(body))
	if err != nil {
		return "", nil, fmt.Errorf("%s is no program: %w", name, err)
	}
	libraries, err = file.ImportedLibraries()
	return interpreter(file), libraries, err
}

func interpreter(file *elf.File) string {
	section := file.Section(".interp")
	if section == nil {
		return ""
	}
	name, err := section.Data()
	if err != nil {
		return ""
	}
	return strings.Trim(string(name), "/\x00")
}

func locate(root, library string) (string, error) {
	for _, pattern := range []string{"lib/*/", "usr/lib/*/", "lib64/"} {
		matches, err := filepath.Glob(filepath.Join(root, pattern+library))
		if err == nil && len(matches) > 0 {
			return filepath.Rel(root, matches[0])
		}
	}
	return "", errors.New("no unpacked package has " + library + ": add the package that has it to conformance/setup")
}
