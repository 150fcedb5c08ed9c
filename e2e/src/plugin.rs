//! Networks by CNI: that of the real plugins, and one of a plugin that does as it is told.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::json;

use crate::Place;

/// Where the distribution puts the real plugins.
pub(crate) const BIN: &str = "/usr/lib/cni";

/// Configures a network of the real plugins bridge, host-local and portmap. False, and a word about
/// it, if they are not on this host.
///
/// # Panics
/// The file cannot be written.
pub fn real_cni(place: &Place) -> bool {
    let plugins = ["bridge", "host-local", "portmap"].map(|name| format!("{BIN}/{name}"));
    if !plugins.iter().all(|plugin| crate::has(plugin)) || !crate::has("iptables") {
        return false;
    }
    let subnet = place.subnet(true);
    let list = json!({
        "cniVersion": "1.0.0",
        "name": place.cni_bridge(),
        "plugins": [
            {
                "type": "bridge", "bridge": place.cni_bridge(), "isGateway": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": place.ipam(),
                    "ranges": [[{ "subnet": format!("{subnet}.0/24") }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
        ],
    });
    let file = place.net_d().join("10-real.conflist");
    fs::write(file, list.to_string()).expect("a test can write its files");
    true
}

/// A plugin of the test's own: a shell script that notes how it is called, and looks at a file for
/// what to do.
pub struct Plugin {
    dir: PathBuf,
    net_d: PathBuf,
}

impl Plugin {
    /// Installs it, and a network that consists of it.
    ///
    /// # Panics
    /// The files cannot be written.
    pub fn install(place: &Place) -> Self {
        let this = Self { dir: place.cni_bin(), net_d: place.net_d() };
        let script = SCRIPT.replace("@DIR@", &this.dir.display().to_string());
        let program = this.dir.join("obedient");
        fs::write(&program, script).expect("a test can write its files");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(program, mode).expect("a test can write its files");
        this.configure("obedient");
        this
    }

    /// Makes the network consist of the plugin of this name.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn configure(&self, plugin: &str) {
        let list = json!({
            "cniVersion": "1.0.0", "name": "obedient", "plugins": [{ "type": plugin }],
        });
        let file = self.net_d.join("10-obedient.conflist");
        fs::write(file, list.to_string()).expect("a test can write its files");
    }

    /// What it does when it is asked for this: a line of shell, run before it answers well.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn when(&self, verb: &str, line: &str) {
        fs::write(self.dir.join(format!("when-{verb}")), line).expect("a test can write its files");
    }

    /// How it was called so far, oldest first: `ADD <container id>`.
    pub fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("calls")).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// How often it was asked for this.
    pub fn count(&self, verb: &str) -> usize {
        self.calls().iter().filter(|call| call.starts_with(verb)).count()
    }
}

const SCRIPT: &str = r#"#!/bin/sh
# A CNI plugin that does what the files beside it say.
cat > /dev/null
echo "$CNI_COMMAND $CNI_CONTAINERID" >> @DIR@/calls
refuse() {
    echo "{\"cniVersion\": \"1.0.0\", \"code\": 100, \"msg\": \"$1\"}"
    exit 1
}
test -e "@DIR@/when-$CNI_COMMAND" && . "@DIR@/when-$CNI_COMMAND"
case "$CNI_COMMAND" in
ADD) echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.99.0.7/24"}]}' ;;
VERSION) echo '{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}' ;;
esac
"#;
