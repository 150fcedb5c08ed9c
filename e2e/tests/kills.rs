//! The big one: fifty times SIGKILL at random moments while twenty pods come, talk and go.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::{
    cell::Cell,
    error::Error,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use cri_proto::v1::ContainerState;
use e2e::{Cri, Daemon, Options, eventually_within, lines, shell};
use futures_util::future::join_all;
use tonic::{Code, Status};

const KILLS: usize = 50;
const PODS: usize = 20;

/// What a container says before it ends.
const LINES: usize = 120;

/// How long one call may be without an answer for the daemon's being away.
const PATIENCE: Duration = Duration::from_secs(40);

/// Numbers that nobody chose (xorshift), the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// One of those who make pods, whatever happens to the daemon.
struct Maker<'a> {
    socket: PathBuf,
    node: &'a Folders,
    number: usize,
}

/// Where things are, without the daemon, which somebody else kills meanwhile.
struct Folders {
    configs: Vec<cri_proto::v1::PodSandboxConfig>,
    logs: Vec<PathBuf>,
}

/// Whether the answer is none of the daemon's, but that it was away.
fn is_away(status: &Status) -> bool {
    status.source().is_some()
}

impl Maker<'_> {
    /// Calls until there is an answer. A channel of its own for each try: one that has seen its
    /// daemon go waits before it connects again.
    async fn insist<T>(
        &self,
        what: &str,
        call: impl AsyncFn(Cri) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let what = format!("maker {}: {what}", self.number);
        eventually_within(PATIENCE, &what, async || match call(Cri::at(&self.socket)).await {
            Err(status) if is_away(&status) => None,
            answer => Some(answer),
        })
        .await
    }

    /// One pod from its run to its removal. It counts for itself that its container ended as it was
    /// to, and that nothing of what it said is lost, doubled or torn.
    async fn one_pod(&self, round: usize) {
        let (mut config, code) = (self.node.configs[self.number].clone(), self.number + 10);
        let name = format!("p{}-{round}", self.number);
        config.metadata.as_mut().unwrap().name = name.clone();
        let pod = self.insist("run", async |cri| cri.run_pod(&config).await).await;
        let pod = pod.unwrap_or_else(|why| panic!("{name} is not run: {why}"));

        let line = format!(
            "n=0; while [ $n -lt {LINES} ]; do echo {name} line $n; n=$((n + 1)); usleep 1500; done; \
             exit {code}"
        );
        let talks = shell(&format!("c{round}"), &line);
        let id = self.insist("create", async |cri| cri.create(&pod, &talks).await).await;
        let id = id.unwrap_or_else(|why| panic!("{name} gets no container: {why}"));
        self.start(&name, &id).await;

        let stopped = (self.number + round).is_multiple_of(4);
        if stopped {
            let stop = self.insist("stop", async |cri| cri.stop(&id, 0).await).await;
            stop.unwrap_or_else(|why| panic!("{name} does not stop: {why}"));
        }
        self.account_for(&name, &id, round, (!stopped).then_some(code)).await;
        let stop = self.insist("stop pod", async |cri| cri.stop_pod(&pod).await).await;
        stop.unwrap_or_else(|why| panic!("{name} is not stopped: {why}"));
        let remove = self.insist("remove pod", async |cri| cri.remove_pod(&pod).await).await;
        remove.unwrap_or_else(|why| panic!("{name} is not removed: {why}"));
    }

    /// A start whose answer was lost has been done, and is refused the second time.
    async fn start(&self, name: &str, id: &str) {
        match self.insist("start", async |cri| cri.start(id).await).await {
            Ok(()) => {}
            Err(why) if why.code() == Code::FailedPrecondition => {
                let status =
                    self.insist("look", async |cri| cri.container(id).await).await.unwrap();
                assert_ne!(status.state(), ContainerState::ContainerCreated, "{name}: {why}");
            }
            Err(why) => panic!("{name} is not started: {why}"),
        }
    }

    async fn account_for(&self, name: &str, id: &str, round: usize, code: Option<usize>) {
        let what = format!("the end of {name}");
        let ended = eventually_within(PATIENCE, &what, async || {
            let status = self.insist("look", async |cri| cri.container(id).await).await.unwrap();
            (status.state() == ContainerState::ContainerExited).then_some(status)
        })
        .await;
        let log = self.node.logs[self.number].join(format!("c{round}.log"));
        let said = lines(&log);
        let torn = said
            .iter()
            .enumerate()
            .find(|(n, line)| line.partial || line.text != format!("{name} line {n}").as_bytes());
        assert_eq!(torn, None, "{name}: a line is lost, doubled or torn");
        match code {
            Some(code) => {
                assert_eq!(usize::try_from(ended.exit_code), Ok(code), "{name}: {ended:?}");
                assert_eq!(said.len(), LINES, "{name}: the last lines are lost");
            }
            // It was stopped, but may have been done before.
            None => assert!(
                matches!(ended.exit_code, 137) || usize::try_from(ended.exit_code).unwrap() >= 10,
                "{name}: {ended:?}"
            ),
        }
    }
}

async fn kill(node: &mut Daemon, chance: &mut Chance) {
    for _ in 0..KILLS {
        // Mostly while pods are being made, and at times late enough for some to be.
        let longest = if chance.below(4) == 0 { 1500 } else { 250 };
        tokio::time::sleep(Duration::from_millis(chance.below(longest))).await;
        node.kill();
        node.start_again().await;
    }
}

#[tokio::test]
async fn nothing_is_lost_whenever_the_daemon_is_killed() {
    let Some(mut node) = Daemon::start(Options::default()).await else { return };
    let before = node.warm_snapshot().await;
    let seed = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let seed = u64::try_from(seed).unwrap() | 1;
    println!("seed {seed}");
    let names: Vec<_> = (0..PODS).map(|n| format!("maker-{n}")).collect();
    let folders = Folders {
        configs: names.iter().map(|name| node.pod(name)).collect(),
        logs: names.iter().map(|name| node.place.logs().join(name)).collect(),
    };
    let (socket, over, made) = (node.place.socket(), Cell::new(false), Cell::new(0));
    let begun = Instant::now();
    let makers = (0..PODS).map(|number| {
        let maker = Maker { socket: socket.clone(), node: &folders, number };
        let (over, made) = (&over, &made);
        async move {
            for round in 0.. {
                maker.one_pod(round).await;
                made.set(made.get() + 1);
                if over.get() {
                    break;
                }
            }
        }
    });
    let killer = async {
        kill(&mut node, &mut Chance(seed)).await;
        over.set(true);
        begun.elapsed()
    };
    let (took, _) = tokio::join!(killer, join_all(makers));
    println!("{KILLS} kills in {took:?}; {} pods in {:?}", made.get(), begun.elapsed());
    assert!(made.get() >= PODS);

    let cri = node.cri();
    assert_eq!(cri.pods().await.unwrap(), []);
    assert_eq!(cri.containers().await.unwrap(), []);
    assert_eq!(cri.quarantine().await.unwrap(), []);
    node.assert_untouched(&before, "fifty kills").await;
}
