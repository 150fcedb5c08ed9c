//! `podbay ps`.

use std::collections::BTreeMap;
use std::io::Write;

use cri_proto::v1;

use crate::args::{Format, Ps};
use crate::error::Error;
use crate::find::Named;
use crate::link::Link;
use crate::words::{age, container_state, or_dash, short};
use crate::{find, json, table};

pub async fn run(link: &Link, ps: &Ps, out: &mut dyn Write) -> Result<(), Error> {
    let running = i32::from(v1::ContainerState::ContainerRunning);
    let mut containers = find::containers(link).await?;
    containers.retain(|container| ps.all || container.state == running);
    containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    match ps.format.output {
        Format::Json => super::print_json(out, &containers.iter().map(json::container).collect()),
        Format::Table => {
            let pods = find::pods(link).await?;
            let names = pods.iter().map(|p| (p.id.clone(), p.name().to_owned())).collect();
            super::print(out, &render(&containers, &names, names::now()))
        }
    }
}

fn render(containers: &[v1::Container], pods: &BTreeMap<String, String>, now: i64) -> String {
    let row = |container: &v1::Container| {
        let pod = &container.pod_sandbox_id;
        [
            short(&container.id).to_owned(),
            container.name().to_owned(),
            pods.get(pod).map_or_else(|| short(pod).to_owned(), Clone::clone),
            container_state(container.state).to_owned(),
            age(container.created_at, now),
            or_dash(image(container)),
        ]
    };
    let rows: Vec<_> = containers.iter().map(row).collect();
    table::render(["CONTAINER ID", "NAME", "POD", "STATE", "AGE", "IMAGE"], &rows)
}

/// As the person wrote it, where that is known; a kubelet asks by id.
fn image(container: &v1::Container) -> &str {
    let Some(image) = &container.image else { return short(&container.image_ref) };
    match &*image.user_specified_image {
        "" => image.image.strip_prefix("sha256:").map_or(&*image.image, short),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn containers_are_shown_with_the_names_of_their_pods() {
        let container =
            |id: &str, pod: &str, image: v1::ImageSpec, state: v1::ContainerState| v1::Container {
                id: id.repeat(16),
                pod_sandbox_id: pod.repeat(16),
                metadata: Some(v1::ContainerMetadata { name: "web".to_owned(), attempt: 1 }),
                image: Some(image),
                state: state.into(),
                created_at: 900 * SECOND,
                ..Default::default()
            };
        let by_id = v1::ImageSpec {
            image: "sha256:".to_owned() + &"0123".repeat(16),
            ..Default::default()
        };
        let written = v1::ImageSpec { user_specified_image: "nginx".to_owned(), ..by_id.clone() };
        let containers = [
            container("aaaa", "pppp", written, v1::ContainerState::ContainerRunning),
            container("bbbb", "qqqq", by_id, v1::ContainerState::ContainerExited),
        ];
        let pods = [("pppp".repeat(16), "shop".to_owned())].into();
        let shown = render(&containers, &pods, 1000 * SECOND);
        assert_eq!(shown, include_str!("../../golden/ps.txt"));
    }
}
