//! The machine while it runs. A job's words come over a port of virtio, its files on a disk that holds
//! a tar archive and nothing else; what is said on the console is kept beside them.

use std::{
    fs,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use super::{
    accel::Accel,
    cut::{Cuts, Listener},
    image::Image,
    job::Job,
    place::Place,
    progress::Progress,
};
use crate::{
    children,
    files::{self, at},
};

const MEMORY: &str = "4096";
const MOST_PROCESSORS: usize = 4;

/// What a job may leave, in bytes; a hole until then.
const OUT: u64 = 2 << 30;

/// For start and end, beyond what a job may take itself.
const AROUND: Duration = Duration::from_secs(300);

/// Runs a job, passes on what it says, and gives its exit code.
pub(super) fn work(place: &Place, image: &Image, programs: &Path, job: &Job) -> Result<u8, String> {
    let accel = Accel::choose(place)?;
    eprintln!("vm: the processor is {}", accel.name());
    let out = place.out(&job.name)?;
    let mut cuts = job.boots.cut.then(Cuts::new).transpose()?;
    for boot in 1..=job.boots.number {
        let files = place.own("out.img");
        files::sparse(&files, OUT)?;
        let cut = cuts.as_mut().filter(|_| boot < job.boots.number).map(Cuts::next);
        let mut qemu = machine(place, image, accel, job, boot)?;
        disk(&mut qemu, programs);
        disk(&mut qemu, &files);
        let console = out.join(format!("console{}.log", numbered(job, boot)));
        qemu.args(["-display", "none", "-serial"]).arg(format!("file:{}", console.display()));
        qemu.args(["-device", "virtio-serial", "-chardev", "file,id=job,path=/dev/stdout"]);
        qemu.args(["-device", "virtserialport,chardev=job,name=job"]);
        let booting = Progress::tick("starting the machine");
        let child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let child = child.map_err(|error| format!("qemu cannot be run: {error}"))?;
        follow(child, booting, &out, job.within + AROUND, cut)?;
        look_for_a_panic(&console)?;
        if let Some(status) = collect(&files, &out)? {
            return Ok(status);
        }
    }
    Err(format!("the machine ended before the job had; see {}", out.join("console*.log").display()))
}

/// A kernel that panics ends the machine as one does that is started anew.
fn look_for_a_panic(console: &Path) -> Result<(), String> {
    let said = fs::read(console).map_err(at("reading", console))?;
    let last_word = |line: &str| {
        Err(format!("the machine's kernel has ended: {line}; see {}", console.display()))
    };
    panic_in(&String::from_utf8_lossy(&said)).map_or(Ok(()), last_word)
}

fn panic_in(said: &str) -> Option<&str> {
    said.lines().find(|line| line.contains("Kernel panic")).map(str::trim)
}

fn numbered(job: &Job, boot: u32) -> String {
    if job.boots.number > 1 { format!("-{boot}") } else { String::new() }
}

/// One that forgets, when it ends, what was written to its own disk; or, for a job of several boots,
/// one that finds there what was on it when the last one ended.
fn machine(
    place: &Place,
    image: &Image,
    accel: Accel,
    job: &Job,
    boot: u32,
) -> Result<Command, String> {
    let words = "quiet systemd.wants=podbay-job.service";
    let number = job.boots.number;
    if number == 1 {
        return Ok(qemu("KILL", place, image, accel, words));
    }
    let words = format!("{words} podbay.boot={boot} podbay.boots={number}");
    let mut qemu = bare("KILL", image, accel, &words);
    let own = difference(place, image, boot)?;
    // What the guest has flushed is on the disk, and what it has not may be lost with the machine.
    qemu.arg("-drive")
        .arg(format!("file={},if=virtio,format=qcow2,cache=none,discard=unmap", escaped(&own)));
    Ok(qemu)
}

/// A disk of what this boot writes, over those of the boots before. It is a new one each time, for what is
/// written for the first time is what QEMU keeps to itself until the guest flushes: so a machine that is
/// killed loses what it had not flushed, as one does whose disk has a cache.
fn difference(place: &Place, image: &Image, boot: u32) -> Result<PathBuf, String> {
    let disk = |boot: u32| place.own(&format!("boot-{boot}.qcow2"));
    let (below, format) = match boot {
        1 => (image.disk.clone(), "raw"),
        _ => (disk(boot - 1), "qcow2"),
    };
    let mut qemu_img = children::alone("KILL", "qemu-img");
    qemu_img.args(["create", "-q", "-f", "qcow2", "-F", format, "-b"]).arg(&below).arg(disk(boot));
    children::finish(qemu_img, "qemu-img")?;
    Ok(disk(boot))
}

/// Gives this terminal to the machine's console.
pub(super) fn shell(place: &Place, image: &Image, programs: &Path) -> Result<(), String> {
    let accel = Accel::choose(place)?;
    // By TERM it puts the terminal back as it was.
    let mut qemu = qemu("TERM", place, image, accel, "");
    disk(&mut qemu, programs);
    qemu.arg("-nographic");
    eprintln!(
        "vm: the processor is {}; `poweroff`, or Ctrl-A and x, ends the machine",
        accel.name()
    );
    let status = qemu.status().map_err(|error| format!("qemu cannot be run: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("qemu ended with {status}")) }
}

/// A machine that forgets, when it ends, what was written to its own disk.
fn qemu(signal: &str, place: &Place, image: &Image, accel: Accel, words: &str) -> Command {
    let mut qemu = bare(signal, image, accel, words);
    qemu.arg("-drive").arg(drive(&image.disk) + ",snapshot=on");
    // Where the difference is kept; it has no name there.
    qemu.env("TMPDIR", place.own(""));
    qemu
}

/// One without a disk.
fn bare(signal: &str, image: &Image, accel: Accel, words: &str) -> Command {
    let processors = thread::available_parallelism().map_or(1, usize::from).min(MOST_PROCESSORS);
    let mut qemu = children::alone(signal, "qemu-system-x86_64");
    qemu.args(["-M", "q35", "-no-reboot", "-nic", "none", "-no-user-config", "-m", MEMORY]);
    qemu.args(accel.arguments()).arg("-smp").arg(processors.to_string());
    qemu.args(["-device", "virtio-rng-pci"]);
    qemu.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initrd);
    qemu.arg("-append").arg(format!("root=/dev/vda rw console=ttyS0 panic=-1 {words}"));
    qemu
}

fn disk(qemu: &mut Command, path: &Path) {
    qemu.arg("-drive").arg(drive(path));
}

fn drive(path: &Path) -> String {
    format!("file={},if=virtio,format=raw,cache=unsafe,discard=unmap", escaped(path))
}

/// A comma in a value is written twice.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Passes on what the job says, until the machine has ended, or was ended: so long after its work began
/// as `cut` says.
fn follow(
    mut child: Child,
    booting: Progress,
    out: &Path,
    within: Duration,
    cut: Option<Duration>,
) -> Result<(), String> {
    let log = out.join("output.log");
    let log =
        fs::File::options().create(true).append(true).open(&log).map_err(at("making", &log))?;
    let output = child.stdout.take().ok_or("qemu has no output")?;
    let (tell, told) = channel();
    thread::spawn(move || {
        let passed = pass_on(output, log, &tell);
        let _ = tell.send(Told::Ended(passed));
    });
    let mut booting = Some(booting);
    let mut power = None;
    let passed = loop {
        let patience = power.map_or(within, |end: Instant| end.duration_since(Instant::now()));
        match told.recv_timeout(patience) {
            Ok(Told::Spoke) => booting.take().map_or((), |it| it.end("it runs")),
            Ok(Told::Works) => power = cut.map(|cut| Instant::now() + cut),
            Ok(Told::Ended(passed)) => break passed,
            Err(RecvTimeoutError::Timeout) if power.is_some() => {
                eprintln!(
                    "vm: power cut, {} ms into the work",
                    cut.unwrap_or_default().as_millis()
                );
                return end(child);
            }
            Err(_) => {
                let _ = child.kill();
                break Err(io::Error::other(format!("no end after {} s", within.as_secs())));
            }
        }
    };
    drop(booting);
    let status = child.wait().map_err(|error| error.to_string())?;
    passed.map_err(|error| format!("following the machine: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("qemu ended with {status}")) }
}

/// Like a machine whose power goes.
fn end(mut child: Child) -> Result<(), String> {
    let ended = child.kill().and_then(|()| child.wait());
    ended.map(drop).map_err(|error| format!("killing qemu: {error}"))
}

enum Told {
    /// The job said something.
    Spoke,
    /// It said that its work begins.
    Works,
    Ended(io::Result<()>),
}

fn pass_on(mut output: impl Read, mut log: fs::File, tell: &Sender<Told>) -> io::Result<()> {
    let (mut buffer, mut listener) = ([0; 1 << 16], Listener::default());
    loop {
        let n = output.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        let heard = listener.hears(&buffer[..n]);
        let _ = tell.send(if heard { Told::Works } else { Told::Spoke });
        log.write_all(&buffer[..n])?;
        io::stdout().write_all(&buffer[..n])?;
        io::stdout().flush()?;
    }
}

/// Unpacks what the job has left, and reads its exit code, which the machine has put beside it. Nothing,
/// if the machine has ended before the job.
fn collect(files: &Path, out: &Path) -> Result<Option<u8>, String> {
    let mut first = [0; 1];
    fs::File::open(files)
        .and_then(|mut it| it.read_exact(&mut first))
        .map_err(at("reading", files))?;
    if first == [0] {
        return Ok(None);
    }
    let mut tar = children::alone("KILL", "tar");
    tar.arg("-xf").arg(files).arg("-C").arg(out).args(["--no-same-owner", "--no-same-permissions"]);
    children::finish(tar, "unpacking what the job has left")?;
    let text = fs::read_to_string(out.join("status")).unwrap_or_default();
    text.trim().parse().map(Some).map_err(|_| format!("the job's exit code is {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_panics_is_no_machine_that_is_started_anew() {
        assert_eq!(panic_in("[ 1.0] reboot: Restarting system\r\n"), None);
        let last = "[ 2.5] Kernel panic - not syncing: Attempted to kill init!";
        assert_eq!(panic_in(&format!("\u{fffd}\r\n{last}\r\n")), Some(last));
    }
}
