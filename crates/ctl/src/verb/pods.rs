//! `podbay pods`.

use std::collections::BTreeMap;
use std::io::Write;

use cri_proto::v1;
use futures_util::{StreamExt, TryStreamExt, stream};
use tonic::Code;

use crate::args::Format;
use crate::error::Error;
use crate::link::{LOOK, Link, answer, within};
use crate::words::{age, or_dash, pod_state, short};
use crate::{find, json, table};

/// How many pods are asked for their addresses at a time.
const AT_A_TIME: usize = 16;

pub async fn run(link: &Link, format: Format, out: &mut dyn Write) -> Result<(), Error> {
    let mut pods = find::pods(link).await?;
    pods.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
    match format {
        Format::Json => super::print_json(out, &pods.iter().map(json::pod).collect()),
        Format::Table => {
            let addresses = addresses(link, &pods).await?;
            super::print(out, &render(&pods, &addresses, names::now()))
        }
    }
}

/// The first address of each pod, by its id.
async fn addresses(
    link: &Link,
    pods: &[v1::PodSandbox],
) -> Result<BTreeMap<String, String>, Error> {
    let ask = |pod: &v1::PodSandbox| {
        let (link, id) = (link.clone(), pod.id.clone());
        async move { address(&link, id).await }
    };
    let asked: Vec<_> = pods.iter().map(ask).collect();
    let found = stream::iter(asked).buffer_unordered(AT_A_TIME).try_collect::<Vec<_>>().await?;
    Ok(found.into_iter().flatten().collect())
}

/// None for a pod that went away between the list and the question.
async fn address(link: &Link, id: String) -> Result<Option<(String, String)>, Error> {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: false };
    let status = link.runtime().pod_sandbox_status(within(LOOK, request)).await;
    if status.as_ref().is_err_and(|status| status.code() == Code::NotFound) {
        return Ok(None);
    }
    let status = answer("PodSandboxStatus", status)?.status.unwrap_or_default();
    Ok(Some((id, first_address(&status))))
}

fn first_address(status: &v1::PodSandboxStatus) -> String {
    let namespaces = status.linux.as_ref().and_then(|l| l.namespaces.as_ref());
    let network = namespaces.and_then(|n| n.options.as_ref()).map(|o| o.network);
    match &status.network {
        Some(network) if !network.ip.is_empty() => network.ip.clone(),
        _ if network == Some(v1::NamespaceMode::Node.into()) => "host".to_owned(),
        _ => String::new(),
    }
}

fn render(pods: &[v1::PodSandbox], addresses: &BTreeMap<String, String>, now: i64) -> String {
    let row = |pod: &v1::PodSandbox| {
        let metadata = pod.metadata.clone().unwrap_or_default();
        [
            short(&pod.id).to_owned(),
            metadata.name,
            metadata.namespace,
            pod_state(pod.state).to_owned(),
            age(pod.created_at, now),
            or_dash(&pod.runtime_handler),
            or_dash(addresses.get(&pod.id).map_or("", String::as_str)),
        ]
    };
    let rows: Vec<_> = pods.iter().map(row).collect();
    table::render(["POD ID", "NAME", "NAMESPACE", "STATE", "AGE", "HANDLER", "IP"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn pod(id: &str, name: &str, state: v1::PodSandboxState, age: i64) -> v1::PodSandbox {
        let metadata = v1::PodSandboxMetadata {
            name: name.to_owned(),
            namespace: "kube-system".to_owned(),
            ..Default::default()
        };
        v1::PodSandbox {
            id: id.repeat(16),
            metadata: Some(metadata),
            state: state.into(),
            created_at: (1_000_000 - age) * SECOND,
            ..Default::default()
        }
    }

    #[test]
    fn pods_are_shown_as_kubectl_would() {
        let pods = [
            pod("a1b2", "coredns-5d78c9869d-x2x7k", v1::PodSandboxState::SandboxReady, 42),
            v1::PodSandbox {
                runtime_handler: "kata".to_owned(),
                ..pod("ffff", "etcd", v1::PodSandboxState::SandboxNotready, 90_000)
            },
        ];
        let addresses = [(pods[0].id.clone(), "10.88.0.7".to_owned())].into();
        let shown = render(&pods, &addresses, 1_000_000 * SECOND);
        assert_eq!(shown, include_str!("../../golden/pods.txt"));
    }

    #[test]
    fn a_pod_on_the_host_has_its_addresses() {
        let options =
            v1::NamespaceOption { network: v1::NamespaceMode::Node.into(), ..Default::default() };
        let status = v1::PodSandboxStatus {
            linux: Some(v1::LinuxPodSandboxStatus {
                namespaces: Some(v1::Namespace { options: Some(options) }),
            }),
            ..Default::default()
        };
        assert_eq!(first_address(&status), "host");
        assert_eq!(first_address(&v1::PodSandboxStatus::default()), "");
    }
}
