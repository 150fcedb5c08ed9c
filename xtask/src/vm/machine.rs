//! The machine while it runs. A job's words come over a port of virtio, its files on a disk that holds
//! a tar archive and nothing else; what is said on the console is kept beside them.

use std::{
    fs,
    io::{self, Read, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Sender, channel},
    thread,
    time::Duration,
};

use super::{
    accel::Accel,
    children,
    image::Image,
    job::Job,
    place::{self, Place, at},
    progress::Progress,
};

const MEMORY: &str = "4096";
const MOST_PROCESSORS: usize = 4;

/// What a job may leave, in bytes; a hole until then.
const OUT: u64 = 2 << 30;

/// For start and end, beyond what a job may take itself.
const AROUND: Duration = Duration::from_secs(300);

/// Runs a job, passes on what it says, and gives its exit code.
pub(super) fn work(place: &Place, image: &Image, programs: &Path, job: &Job) -> Result<u8, String> {
    let out = place.out(&job.name)?;
    let files = place.own("out.img");
    place::sparse(&files, OUT)?;
    let accel = Accel::choose(place)?;
    let mut qemu = qemu("KILL", place, image, accel, "quiet systemd.wants=podbay-job.service");
    disk(&mut qemu, programs);
    disk(&mut qemu, &files);
    qemu.args(["-display", "none", "-serial"])
        .arg(format!("file:{}", out.join("console.log").display()));
    qemu.args(["-device", "virtio-serial", "-chardev", "file,id=job,path=/dev/stdout"]);
    qemu.args(["-device", "virtserialport,chardev=job,name=job"]);
    eprintln!("vm: the processor is {}", accel.name());
    let booting = Progress::tick("starting the machine");
    let child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let child = child.map_err(|error| format!("qemu cannot be run: {error}"))?;
    follow(child, booting, &out, job.within + AROUND)?;
    collect(&files, &out)
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
    let processors = thread::available_parallelism().map_or(1, usize::from).min(MOST_PROCESSORS);
    let mut qemu = children::alone(signal, "qemu-system-x86_64");
    qemu.args(["-M", "q35", "-no-reboot", "-nic", "none", "-no-user-config", "-m", MEMORY]);
    qemu.args(accel.arguments()).arg("-smp").arg(processors.to_string());
    qemu.args(["-device", "virtio-rng-pci"]);
    qemu.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initrd);
    qemu.arg("-append").arg(format!("root=/dev/vda rw console=ttyS0 panic=-1 {words}"));
    qemu.arg("-drive").arg(drive(&image.disk) + ",snapshot=on");
    // Where the difference is kept; it has no name there.
    qemu.env("TMPDIR", place.own(""));
    qemu
}

fn disk(qemu: &mut Command, path: &Path) {
    qemu.arg("-drive").arg(drive(path));
}

fn drive(path: &Path) -> String {
    // A comma in a value is written twice.
    let path = path.display().to_string().replace(',', ",,");
    format!("file={path},if=virtio,format=raw,cache=unsafe,discard=unmap")
}

/// Passes on what the job says, until the machine has ended.
fn follow(mut child: Child, booting: Progress, out: &Path, within: Duration) -> Result<(), String> {
    let log = out.join("output.log");
    let log = fs::File::create(&log).map_err(at("making", &log))?;
    let output = child.stdout.take().ok_or("qemu has no output")?;
    let (tell, told) = channel();
    thread::spawn(move || {
        let passed = pass_on(output, log, &tell);
        let _ = tell.send(Told::Ended(passed));
    });
    let mut booting = Some(booting);
    let passed = loop {
        match told.recv_timeout(within) {
            Ok(Told::Begun) => booting.take().map_or((), |it| it.end("it runs")),
            Ok(Told::Ended(passed)) => break passed,
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

enum Told {
    Begun,
    Ended(io::Result<()>),
}

fn pass_on(mut output: impl Read, mut log: fs::File, tell: &Sender<Told>) -> io::Result<()> {
    let mut buffer = [0; 1 << 16];
    loop {
        let n = output.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        let _ = tell.send(Told::Begun);
        log.write_all(&buffer[..n])?;
        io::stdout().write_all(&buffer[..n])?;
        io::stdout().flush()?;
    }
}

/// Unpacks what the job has left, and reads its exit code, which the machine has put beside it.
fn collect(files: &Path, out: &Path) -> Result<u8, String> {
    let mut tar = children::alone("KILL", "tar");
    tar.arg("-xf").arg(files).arg("-C").arg(out).args(["--no-same-owner", "--no-same-permissions"]);
    children::finish(tar, "unpacking what the job has left")?;
    let status = out.join("status");
    let text = fs::read_to_string(&status).unwrap_or_default();
    text.trim().parse().map_err(|_| {
        format!("the machine ended before the job had; see {}", out.join("console.log").display())
    })
}
