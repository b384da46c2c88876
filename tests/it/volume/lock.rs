//! The lock: one writer per root.

use super::*;

#[test]
fn a_second_handle_waits_in_vain_and_says_for_whom() {
    let place = Place::new(PublishMode::Symlink);
    let first = place.open().unwrap();
    let wait = Duration::from_millis(120);
    let error = Volume::open(place.layout.clone(), "second", wait, &budget()).unwrap_err();
    let pid = std::process::id();
    assert_eq!(error.stage, Stage::Start);
    assert!(
        error.to_string().contains(&format!("pid {pid} on")),
        "{error}"
    );
    drop(first);
    place.open().unwrap();
}

#[test]
fn a_second_handle_gets_the_root_as_soon_as_it_is_free() {
    let place = Place::new(PublishMode::Symlink);
    let first = place.open().unwrap();
    let layout = place.layout.clone();
    let second = std::thread::spawn(move || Volume::open(layout, "second", MINUTE, &budget()));
    publish(&first, 1);
    drop(first);
    assert_eq!(live(&second.join().unwrap().unwrap()), Some(commit(1)));
}

#[test]
fn another_process_that_holds_the_lock_is_waited_for_and_its_death_frees_it() {
    let place = Place::new(PublishMode::Symlink);
    drop(place.open().unwrap());
    let mut holder = Command::new("flock")
        .arg(place.gvr("lock"))
        .args(["sh", "-c", "echo held; exec sleep 600"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = holder.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    assert_eq!(line, "held\n");
    assert!(place.open().is_err());
    // util-linux' flock execs nothing itself: the child of the shell holds the descriptor too.
    let child = fs::read_to_string(format!("/proc/{0}/task/{0}/children", holder.id())).unwrap();
    for pid in child.split_ascii_whitespace() {
        Command::new("kill").args(["-9", pid]).status().unwrap();
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    Volume::open(place.layout.clone(), "next", MINUTE, &budget()).unwrap();
}

#[test]
fn waiting_for_the_lock_can_be_cancelled() {
    let place = Place::new(PublishMode::Symlink);
    let _first = place.open().unwrap();
    let budget = budget();
    let flag = budget.cancelled().clone();
    let layout = place.layout.clone();
    let second = std::thread::spawn(move || Volume::open(layout, "second", MINUTE, &budget));
    flag.store(true, Ordering::Relaxed);
    assert!(second.join().unwrap().unwrap_err().is_cancelled());
}
