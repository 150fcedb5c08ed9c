//go:build tools

// What the module builds from others' source. The build tag keeps the imports out of every build of ours; they are here so
// that go.mod and go.sum pin the tools and all they stand on. Nothing in this file is ever compiled.

package conformance

import (
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
	_ "sigs.k8s.io/cri-tools/cmd/critest"
)
