//! What a handler's runtime can do that not every one can, and what of that pods can have here. A
//! runtime that is a program is asked when the daemon starts, once; nobody waits for its answer but
//! who needs it. How it is asked is the daemon's matter.

use tokio::sync::watch;

use crate::{
    Pods,
    host::{Handler, Host},
};

/// What a handler offers, or what a runtime can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Read-only mounts that are so all the way down.
    pub recursive_read_only: bool,
    /// User namespaces, and mounts that are mapped for them.
    pub user_namespaces: bool,
}

/// What a runtime can do, once it is known.
#[derive(Clone, Debug)]
pub struct Abilities(watch::Receiver<Option<Features>>);

impl Abilities {
    pub fn known(features: Features) -> Self {
        Self(watch::channel(Some(features)).1)
    }

    /// Those that a task finds out, which begins now.
    pub fn asked(asking: impl Future<Output = Features> + Send + 'static) -> Self {
        let (told, answer) = watch::channel(None);
        tokio::spawn(async move { told.send_replace(Some(asking.await)) });
        Self(answer)
    }

    /// Waits until they are known. If whoever was to find out has failed, there are none.
    pub async fn get(&self) -> Features {
        let mut answer = self.0.clone();
        answer.wait_for(Option::is_some).await.ok().and_then(|known| *known).unwrap_or_default()
    }
}

impl Pods {
    /// What each handler offers, by its name.
    pub async fn features(&self) -> Vec<(String, Features)> {
        let mut all = Vec::new();
        for (name, handler) in &self.inner.world.host.handlers {
            all.push((name.clone(), self.features_of(handler).await));
        }
        all
    }

    /// The handler of pods that name none.
    pub fn default_handler(&self) -> &str {
        &self.inner.world.host.default_handler
    }

    /// Whether a pod can have both a user namespace and the host's network.
    pub fn user_namespaces_on_the_hosts_network(&self) -> bool {
        self.inner.world.host.user_namespaces
    }

    pub(crate) async fn features_of(&self, handler: &Handler) -> Features {
        let able = handler.abilities.get().await;
        let Host { node, user_namespaces, .. } = &self.inner.world.host;
        Features {
            recursive_read_only: able.recursive_read_only && node.recursive_read_only,
            user_namespaces: able.user_namespaces && *user_namespaces,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_early_waits_for_the_answer_and_one_that_never_comes_is_none() {
        let all = Features { recursive_read_only: true, user_namespaces: true };
        let (answer, coming) = tokio::sync::oneshot::channel();
        let asked = Abilities::asked(async move { coming.await.unwrap() });
        let (early, late) = tokio::join!(asked.get(), async {
            answer.send(all).unwrap();
            asked.get().await
        });
        assert_eq!((early, late), (all, all));
        let (_, never) = tokio::sync::oneshot::channel::<Features>();
        let lost = Abilities::asked(async move { never.await.expect("it fails") });
        assert_eq!(lost.get().await, Features::default());
        assert_eq!(Abilities::known(all).get().await, all);
    }
}
