use super::*;

struct Fixture {
    root: tempfile::TempDir,
    database: Database,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("meta.redb");
        let database = tokio::task::block_in_place(|| Database::open(&path).unwrap());
        Self { root, database }
    }

    fn open(&self) -> Volumes {
        let database = self.database.clone();
        tokio::task::block_in_place(|| {
            Volumes::open(&self.root.path().join("volumes"), database).unwrap()
        })
    }
}

fn id(digit: char) -> ContainerId {
    digit.to_string().repeat(64).parse().unwrap()
}

fn named(name: &str) -> New {
    New { name: name.into(), ..New::default() }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Error>, kind: Kind, text: &str) {
    let error = answer.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.kind()), (text, kind));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_volume_is_made_once() {
    let fixture = Fixture::new();
    let volumes = fixture.open();
    let (volume, new) = volumes.create(named("nv")).await.unwrap();
    assert!(new && volumes.mountpoint("nv").is_dir());
    let labels = Some(BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    let again =
        volumes.create(New { labels, driver: "local".into(), ..named("nv") }).await.unwrap();
    assert_eq!(again, (volume.clone(), false));
    assert_eq!(fixture.open().get("nv").unwrap(), volume);
    let other = New { driver: "nosuch".into(), ..named("nv") };
    refused(
        volumes.create(other).await,
        Kind::Conflict,
        "create nv: conflict: volume name must be unique",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bad_names_and_drivers_are_refused_in_dockers_words() {
    let fixture = Fixture::new();
    let volumes = fixture.open();
    refused(
        volumes.create(named("a")).await,
        Kind::InvalidArgument,
        "create a: volume name is too short, names should be at least two alphanumeric characters",
    );
    for wrong in ["../../x", "n/v", ".nv", "_nv", "n v", "..", "n\u{e4}", "~x"] {
        let error = volumes.create(named(wrong)).await.unwrap_err();
        assert!(error.to_string().contains("includes invalid characters"), "{wrong}: {error}");
    }
    refused(
        volumes.create(New { driver: "nosuch".into(), ..named("nv") }).await,
        Kind::NotFound,
        "create nv: error looking up volume plugin nosuch: plugin \"nosuch\" not found",
    );
    assert_eq!(volumes.list(), []);
    refused(volumes.remove("nv", false).await, Kind::NotFound, "get nv: no such volume");
    volumes.remove("nv", true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_volume_in_use_stays() {
    let fixture = Fixture::new();
    let volumes = fixture.open();
    let new = volumes.acquire(&id('a'), vec![named("nv"), New::default()]).await.unwrap();
    assert_eq!((new.len(), new[1].is_anonymous(), new[1].name.len()), (2, true, 64));
    assert_eq!(volumes.acquire(&id('b'), vec![named("nv")]).await.unwrap(), []);
    let text = format!("remove nv: volume is in use - [{}, {}]", id('a'), id('b'));
    refused(volumes.remove("nv", true).await, Kind::Conflict, &text);
    volumes.release(&id('a'));
    volumes.release(&id('b'));
    volumes.remove("nv", false).await.unwrap();
    assert!(!fixture.root.path().join("volumes/nv").exists());
    // Users are learnt again after a restart.
    volumes.create(named("nv")).await.unwrap();
    let volumes = fixture.open();
    volumes.restore([(id('a'), vec!["nv".to_owned()])]);
    assert!(volumes.remove("nv", false).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_create_that_fails_leaves_no_volume_and_no_user() {
    let fixture = Fixture::new();
    let volumes = fixture.open();
    volumes.create(named("old")).await.unwrap();
    let wanted = vec![named("old"), named("nv"), named("n/v")];
    assert!(volumes.acquire(&id('a'), wanted).await.is_err());
    let left: Vec<_> =
        volumes.list().into_iter().map(|(volume, users)| (volume.name, users)).collect();
    assert_eq!(left, [("old".to_owned(), vec![])]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_removal_that_was_cut_short_is_finished_and_files_without_a_record_are_kept() {
    let fixture = Fixture::new();
    let volumes = fixture.open();
    let (volume, _) = volumes.create(named("nv")).await.unwrap();
    let directory = fixture.root.path().join("volumes");
    fs::rename(directory.join("nv"), directory.join(TRASH).join(trash_name(&volume))).unwrap();
    fs::create_dir_all(directory.join("empty/_data")).unwrap();
    fs::create_dir_all(directory.join("lost/_data")).unwrap();
    fs::write(directory.join("lost/_data/file"), "worth").unwrap();
    let volumes = fixture.open();
    assert_eq!(volumes.list(), []);
    assert_eq!(fixture.database.get(VOLUMES, "nv").unwrap(), None);
    assert!(!directory.join("empty").exists());
    // Whoever makes the volume again finds them.
    volumes.create(named("lost")).await.unwrap();
    assert_eq!(volumes.usage("lost"), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_directory_that_a_power_cut_took_is_made_again() {
    let fixture = Fixture::new();
    let volumes = fixture.open();
    volumes.create(named("nv")).await.unwrap();
    fs::remove_dir_all(fixture.root.path().join("volumes/nv")).unwrap();
    assert_eq!(volumes.content("nv").unwrap(), Content::Directory(volumes.mountpoint("nv")));
    assert!(volumes.mountpoint("nv").is_dir());
}

#[test]
fn a_subpath_leads_through_no_link() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
    std::os::unix::fs::symlink("a", dir.path().join("inner")).unwrap();
    assert_eq!(Volumes::subpath(dir.path(), "a/b").unwrap(), dir.path().join("a/b"));
    for wrong in ["link", "link/passwd", "inner/b", "missing", "../x", "/etc"] {
        assert!(Volumes::subpath(dir.path(), wrong).is_err(), "{wrong}");
    }
}
