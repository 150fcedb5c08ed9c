#![allow(clippy::unwrap_used)]
mod common;
use common::*;
use shim_api::ExecSync;
use std::time::Instant;
fn pct(mut v: Vec<f64>) -> String {
    v.sort_by(|a, b| a.partial_cmp(b).unwrap());
    format!("p50 {:.2} p95 {:.2} min {:.2}", v[v.len() / 2], v[v.len() * 95 / 100], v[0])
}
fn rollup(pid: u32) -> String {
    let t = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    t.lines()
        .filter(|l| {
            l.starts_with("Rss")
                || l.starts_with("Pss:")
                || l.starts_with("Private")
                || l.starts_with("Anonymous")
        })
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("; ")
}
#[tokio::test]
async fn bench() {
    let pod = Pod::start(&std::env::var("RT").unwrap_or_default());
    println!("idle {}", rollup(pod.pid()));
    let (mut c, mut s, mut w, mut d) = (vec![], vec![], vec![], vec![]);
    for i in 0..50 {
        let id = format!("c{i}");
        let b = pod.bundle(&id, &["true"]);
        let t = Instant::now();
        pod.create(&b).await.unwrap();
        c.push(t.elapsed().as_secs_f64() * 1e3);
        let t = Instant::now();
        pod.shim.start(&id, SOON).await.unwrap();
        s.push(t.elapsed().as_secs_f64() * 1e3);
        let t = Instant::now();
        pod.wait(&id).await;
        w.push(t.elapsed().as_secs_f64() * 1e3);
        let t = Instant::now();
        pod.shim.delete(&id, SOON).await.unwrap();
        d.push(t.elapsed().as_secs_f64() * 1e3);
    }
    println!("create {}\nstart {}\nwait {}\ndelete {}", pct(c), pct(s), pct(w), pct(d));
    let b = pod.bundle("x", &["sleep", "1000"]);
    pod.run(&b).await;
    println!("one container {}", rollup(pod.pid()));
    let mut e = vec![];
    for _ in 0..200 {
        let t = Instant::now();
        pod.shim
            .exec_sync("x", ExecSync { args: vec!["true".into()], timeout: Some(SOON) })
            .await
            .unwrap();
        e.push(t.elapsed().as_secs_f64() * 1e3);
    }
    println!("exec {}", pct(e));
    println!("after execs {}", rollup(pod.pid()));
    let mut p = vec![];
    for _ in 0..200 {
        let t = Instant::now();
        pod.shim.state("x", SOON).await.unwrap();
        p.push(t.elapsed().as_secs_f64() * 1e3);
    }
    println!("state {}", pct(p));
    let mut starts = vec![];
    for _ in 0..20 {
        let t = Instant::now();
        let q = Pod::start("");
        starts.push(t.elapsed().as_secs_f64() * 1e3);
        drop(q);
    }
    println!("shim start {}", pct(starts));
    println!(
        "{}",
        std::fs::read_to_string(format!("/proc/{}/smaps", pod.pid()))
            .unwrap()
            .split("VmFlags")
            .filter(|b| !b.contains("Private_Dirty:          0 kB"))
            .map(|b| {
                let mut name = String::new();
                let mut pd = String::new();
                for l in b.lines() {
                    if l.contains("-") && l.contains(" r") {
                        name = l.to_string();
                    }
                    if l.starts_with("Private_Dirty") {
                        pd = l.to_string();
                    }
                }
                format!("{pd} {name}")
            })
            .collect::<Vec<_>>()
            .join("\n")
    );
}
