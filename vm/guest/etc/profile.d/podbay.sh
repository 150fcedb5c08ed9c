export PATH=/podbay/bin:/podbay/target/conformance/bin:$PATH PODBAY_BIN_DIR=/podbay/bin
