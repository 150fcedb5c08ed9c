//! The order of calls: which follow which, how often, and after a restart.

use std::time::Duration;

use controllers::{Exit, Sandbox, Status};

use super::{
    Scene, Subject,
    scene::{soon, until},
};

pub async fn a_sandbox_is_created_started_stopped_and_shut_down(subject: impl Subject) {
    let Some(scene) = Scene::new(subject).await else { return };
    let (pod, controller) = (scene.pod(), &scene.controller);
    assert_eq!(scene.status(&pod).await, Status::Gone);
    controller.create(&pod).await.unwrap();
    assert_eq!(scene.status(&pod).await, Status::Created);
    let started = controller.start(&pod.place).await.unwrap();
    assert!(started.at > 0);
    assert_eq!(scene.status(&pod).await, Status::Running);
    controller.stop(&pod.place, Duration::ZERO).await.unwrap();
    let Status::Stopped(exit) = scene.status(&pod).await else { panic!("it is stopped") };
    assert!(exit.at >= started.at, "{exit:?} {started:?}");
    scene.shut_down(&pod).await;
}

pub async fn what_was_never_made_can_be_stopped_and_shut_down(subject: impl Subject) {
    let Some(scene) = Scene::new(subject).await else { return };
    let pod = scene.pod();
    for _ in 0..2 {
        scene.controller.stop(&pod.place, Duration::ZERO).await.unwrap();
        scene.shut_down(&pod).await;
    }
}

pub async fn what_does_not_exist_cannot_be_started_and_its_wait_is_over(subject: impl Subject) {
    let Some(scene) = Scene::new(subject).await else { return };
    let pod = scene.pod();
    scene.controller.start(&pod.place).await.unwrap_err();
    // Whether that is an error or an end that nobody saw comes to the same.
    let over = soon(scene.controller.wait(&pod.place)).await;
    assert!(over.as_ref().is_err() || over.is_ok_and(|exit| exit.code == 255));
    scene.controller.metrics(&pod.place).await.unwrap_err();
}

pub async fn a_sandbox_that_never_started_can_be_stopped_and_shut_down(subject: impl Subject) {
    let Some(scene) = Scene::new(subject).await else { return };
    let pod = scene.pod();
    scene.controller.create(&pod).await.unwrap();
    scene.controller.stop(&pod.place, Duration::ZERO).await.unwrap();
    assert!(matches!(scene.status(&pod).await, Status::Stopped(_)));
    scene.shut_down(&pod).await;
}

pub async fn stop_and_shutdown_can_be_repeated(subject: impl Subject) {
    let Some(scene) = Scene::new(subject).await else { return };
    let (pod, controller) = (scene.pod(), &scene.controller);
    scene.started(&pod).await;
    controller.stop(&pod.place, Duration::from_secs(5)).await.unwrap();
    let first = scene.status(&pod).await;
    assert!(matches!(first, Status::Stopped(_)), "{first:?}");
    for grace in [0, 5] {
        controller.stop(&pod.place, Duration::from_secs(grace)).await.unwrap();
        assert_eq!(scene.status(&pod).await, first);
    }
    for _ in 0..2 {
        scene.shut_down(&pod).await;
    }
    controller.stop(&pod.place, Duration::ZERO).await.unwrap();
}

pub async fn a_shutdown_needs_no_stop(subject: impl Subject) {
    let Some(scene) = Scene::new(subject).await else { return };
    let (created, started) = (scene.pod(), scene.pod());
    scene.controller.create(&created).await.unwrap();
    scene.started(&started).await;
    scene.shut_down(&created).await;
    scene.shut_down(&started).await;
}

pub async fn a_wait_ends_with_the_stop(subject: impl Subject) {
    let Some(scene) = Scene::new(subject).await else { return };
    let pod = scene.pod();
    scene.started(&pod).await;
    let waits = waits(&scene, &pod, 3);
    scene.controller.stop(&pod.place, Duration::ZERO).await.unwrap();
    for wait in waits {
        let exit = soon(wait).await.unwrap().unwrap();
        assert_eq!(scene.status(&pod).await, Status::Stopped(exit));
    }
    // One that comes late is told the same.
    let late = soon(scene.controller.wait(&pod.place)).await.unwrap();
    assert_eq!(scene.status(&pod).await, Status::Stopped(late));
    scene.shut_down(&pod).await;
}

pub async fn a_wait_ends_with_the_shutdown(subject: impl Subject) {
    let Some(scene) = Scene::new(subject).await else { return };
    let pod = scene.pod();
    scene.started(&pod).await;
    let waits = waits(&scene, &pod, 2);
    scene.shut_down(&pod).await;
    for wait in waits {
        // Nobody is left who would know how it ended.
        let _ = soon(wait).await.unwrap();
    }
}

type Wait = tokio::task::JoinHandle<Result<Exit, controllers::Error>>;

fn waits<S: Subject>(scene: &Scene<S>, pod: &Sandbox, number: usize) -> Vec<Wait> {
    let wait = |_| {
        let (controller, place) = (scene.controller.clone(), pod.place.clone());
        tokio::spawn(async move { controller.wait(&place).await })
    };
    (0..number).map(wait).collect()
}

pub async fn what_could_not_be_created_can_be_shut_down_and_made_again(subject: impl Subject) {
    let Some(scene) = Scene::new(subject).await else { return };
    let pod = scene.pod();
    let mut wrong = pod.clone();
    // The kernel takes numbers only.
    wrong.sysctls = [("kernel.msgmax".to_owned(), "many".to_owned())].into();
    scene.controller.create(&wrong).await.unwrap_err();
    scene.shut_down(&pod).await;
    scene.started(&pod).await;
    assert_eq!(scene.status(&pod).await, Status::Running);
    scene.shut_down(&pod).await;
}

pub async fn a_new_controller_knows_what_an_earlier_one_made(subject: impl Subject) {
    let Some(mut scene) = Scene::new(subject).await else { return };
    let [created, running, stopped, gone] = [scene.pod(), scene.pod(), scene.pod(), scene.pod()];
    scene.controller.create(&created).await.unwrap();
    scene.started(&running).await;
    scene.started(&stopped).await;
    scene.controller.stop(&stopped.place, Duration::ZERO).await.unwrap();
    scene.started(&gone).await;
    scene.shut_down(&gone).await;
    let all = [&created, &running, &stopped, &gone];
    let mut before = Vec::new();
    for pod in all {
        before.push(scene.status(pod).await);
    }
    scene.restart().await;
    for (pod, before) in all.into_iter().zip(before) {
        assert_eq!(scene.status(pod).await, before);
        scene.shut_down(pod).await;
    }
}

pub async fn a_new_controller_starts_what_an_earlier_one_created(subject: impl Subject) {
    let Some(mut scene) = Scene::new(subject).await else { return };
    let pod = scene.pod();
    scene.controller.create(&pod).await.unwrap();
    scene.restart().await;
    scene.controller.start(&pod.place).await.unwrap();
    assert_eq!(scene.status(&pod).await, Status::Running);
    scene.shut_down(&pod).await;
}

pub async fn a_new_controller_waits_for_what_an_earlier_one_started(subject: impl Subject) {
    let Some(mut scene) = Scene::new(subject).await else { return };
    let pod = scene.pod();
    let started = scene.started(&pod).await;
    scene.restart().await;
    let waits = waits(&scene, &pod, 1);
    if let Some(pid) = started.pid {
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "it lives on");
    }
    scene.controller.stop(&pod.place, Duration::ZERO).await.unwrap();
    for wait in waits {
        let exit = soon(wait).await.unwrap().unwrap();
        assert_eq!(scene.status(&pod).await, Status::Stopped(exit));
    }
    scene.shut_down(&pod).await;
    until("the process is gone", || {
        started.pid.is_none_or(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    });
}

pub async fn many_sandboxes_are_made_at_a_time(subject: impl Subject) {
    let Some(scene) = Scene::new(subject).await else { return };
    let pods: Vec<_> = (0..8).map(|_| scene.pod()).collect();
    let whole_life = |pod: &Sandbox| {
        let (controller, pod) = (scene.controller.clone(), pod.clone());
        tokio::spawn(async move {
            controller.create(&pod).await?;
            controller.start(&pod.place).await?;
            assert_eq!(controller.status(&pod.place).await?, Status::Running);
            controller.stop(&pod.place, Duration::ZERO).await?;
            controller.shutdown(&pod.place).await
        })
    };
    let lives: Vec<_> = pods.iter().map(whole_life).collect();
    for life in lives {
        soon(life).await.unwrap().unwrap();
    }
    for pod in &pods {
        scene.assert_gone(pod).await;
    }
}
