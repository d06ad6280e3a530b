//! The applier and the packer together, on real directories, as root.

use std::{
    fs::{self, File},
    io::{Cursor, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::{
    Error,
    apply::{Applied, Flavor, apply, reader},
    pack::Packer,
    recipe,
    view::View,
};

/// One entry of a hand-made tar.
struct Made<'a> {
    name: &'a str,
    kind: tar::EntryType,
    link: &'a str,
    mode: u32,
    uid: u64,
    data: &'a [u8],
    pax: &'a [(&'a str, &'a [u8])],
}

const FILE: Made<'static> = Made {
    name: "",
    kind: tar::EntryType::Regular,
    link: "",
    mode: 0o644,
    uid: 0,
    data: b"",
    pax: &[],
};

fn file<'a>(name: &'a str, data: &'a [u8]) -> Made<'a> {
    Made { name, data, ..FILE }
}

fn link<'a>(name: &'a str, kind: tar::EntryType, to: &'a str) -> Made<'a> {
    Made { name, kind, link: to, ..FILE }
}

fn dir(name: &str) -> Made<'_> {
    Made { name, kind: tar::EntryType::Directory, mode: 0o755, ..FILE }
}

/// Builds a tar without any of the checks that a good packer makes.
fn tar_of(entries: &[Made<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        if !entry.pax.is_empty() {
            let mut records = Vec::new();
            for (key, value) in entry.pax {
                let rest = key.len() + value.len() + 3;
                let mut length = rest + 1;
                while rest + length.to_string().len() != length {
                    length += 1;
                }
                records.extend(format!("{length} {key}=").bytes());
                records.extend(*value);
                records.push(b'\n');
            }
            push(
                &mut out,
                &Made { name: "pax", kind: tar::EntryType::XHeader, data: &records, ..FILE },
            );
        }
        push(&mut out, entry);
    }
    out.extend([0; 1024]);
    out
}

fn push(out: &mut Vec<u8>, entry: &Made<'_>) {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
    header.as_old_mut().linkname[..entry.link.len()].copy_from_slice(entry.link.as_bytes());
    header.set_entry_type(entry.kind);
    header.set_mode(entry.mode);
    header.set_uid(entry.uid);
    header.set_gid(0);
    header.set_mtime(1_600_000_000);
    header.set_size(entry.data.len() as u64);
    header.set_cksum();
    out.extend(header.as_bytes());
    out.extend(entry.data);
    out.extend(vec![0; (512 - entry.data.len() % 512) % 512]);
}

struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("fs")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), "secret").unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("fs").join(name)
    }

    fn outside(&self) -> String {
        self.dir.path().join("outside").to_str().unwrap().to_owned()
    }

    fn view(&self) -> View {
        View::new(File::open(self.path("")).unwrap().into())
    }

    fn layer(&self, tar: &[u8]) -> Result<Applied, Error> {
        let path = self.dir.path().join("recipe");
        let _ = fs::remove_file(&path);
        let recipe = recipe::Writer::new(crate::disk::File::create_new(&path).unwrap()).unwrap();
        let mut reader = reader(Cursor::new(tar.to_vec()), Some(recipe));
        let flavor = Flavor::Layer { aside: self.dir.path() };
        let applied = apply(&mut reader, &self.view(), b"", flavor)?;
        reader.finish()?.1.unwrap().finish().unwrap();
        Ok(applied)
    }

    fn copy(&self, tar: &[u8], prefix: &str, keep_kind: bool) -> Result<Applied, Error> {
        let mut reader = reader(Cursor::new(tar.to_vec()), None);
        apply(&mut reader, &self.view(), prefix.as_bytes(), Flavor::Copy { keep_kind, owner: None })
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// What is outside is as it was.
    #[track_caller]
    fn nothing_escaped(&self) {
        let outside = self.dir.path().join("outside");
        assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        let mut beside: Vec<_> =
            fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        beside.retain(|name| name != "recipe" && name != "old");
        assert_eq!(beside.len(), 2, "{beside:?}");
    }

    fn tar_again(&self) -> Vec<u8> {
        let mut out = Vec::new();
        recipe::replay(self.dir.path(), "fs", "recipe", &mut out).unwrap();
        out
    }
}

#[test]
fn names_that_climb_stay_inside() {
    let tree = Tree::new();
    let climbing = format!("{}{}", "../".repeat(12), "x");
    tree.layer(&tar_of(&[file(&climbing, b"1"), file("/abs", b"2"), file("a/../b", b"3")]))
        .unwrap();
    assert_eq!(
        (tree.read("x"), tree.read("abs"), tree.read("b")),
        ("1".into(), "2".into(), "3".into())
    );
    tree.nothing_escaped();
}

#[test]
fn a_link_out_of_the_root_leads_nowhere() {
    let tree = Tree::new();
    let outside = tree.outside();
    let symlink = tar::EntryType::Symlink;
    let tar = tar_of(&[link("d", symlink, &outside), file("d/evil", b"x")]);
    // The link is resolved inside, where there is no such place.
    assert!(tree.layer(&tar).is_err());
    tree.nothing_escaped();
    let up = tar_of(&[link("u", symlink, "../../.."), file("u/outside/evil", b"x")]);
    let tree = Tree::new();
    tree.layer(&up).unwrap();
    tree.nothing_escaped();
    assert_eq!(tree.read("outside/evil"), "x");
}

#[test]
fn a_hard_link_to_something_outside_is_an_error_that_names_it() {
    for target in ["/../outside/secret".to_owned(), "../outside/secret".to_owned()] {
        let tree = Tree::new();
        let error =
            tree.layer(&tar_of(&[link("leak", tar::EntryType::Link, &target)])).unwrap_err();
        assert!(error.to_string().contains("leak"), "{error}");
        tree.nothing_escaped();
    }
}

#[test]
fn a_file_over_a_link_replaces_the_link() {
    let tree = Tree::new();
    let secret = format!("{}/secret", tree.outside());
    let symlink = tar::EntryType::Symlink;
    tree.layer(&tar_of(&[link("h", symlink, &secret), file("h", b"new")])).unwrap();
    assert_eq!(tree.read("h"), "new");
    assert!(tree.path("h").symlink_metadata().unwrap().is_file());
    tree.nothing_escaped();
}

#[test]
fn a_directory_over_a_link_does_not_reach_through_it() {
    let tree = Tree::new();
    let outside = tree.outside();
    let before = fs::metadata(&outside).unwrap();
    let mut over = dir("d");
    over.mode = 0o777;
    over.uid = 1234;
    tree.layer(&tar_of(&[link("d", tar::EntryType::Symlink, &outside), over])).unwrap();
    let after = fs::metadata(&outside).unwrap();
    assert_eq!((before.mode(), before.uid()), (after.mode(), after.uid()));
    assert!(tree.path("d").symlink_metadata().unwrap().is_dir());
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_else() {
    let tree = Tree::new();
    tree.layer(&tar_of(&[dir("d"), file("d/.wh.f", b""), file("e/.wh..wh..opq", b"")])).unwrap();
    let whiteout = fs::symlink_metadata(tree.path("d/f")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    let opaque =
        cleat_sys::xattr::get(File::open(tree.path("e")).unwrap(), b"trusted.overlay.opaque");
    assert_eq!(opaque.unwrap().unwrap(), b"y");
    for bad in [".wh.", "k/.wh..", "k/.wh..."] {
        let tree = Tree::new();
        let refused = tree.layer(&tar_of(&[dir("k"), file("k/f", b"1"), file(bad, b"")]));
        assert!(refused.is_err(), "{bad}");
        tree.nothing_escaped();
    }
}

#[test]
fn a_whiteout_spares_its_own_layer() {
    let tree = Tree::new();
    tree.layer(&tar_of(&[
        file("f", b"1"),
        file(".wh.f", b""),
        file(".wh.g", b""),
        file("g", b"2"),
    ]))
    .unwrap();
    assert_eq!((tree.read("f"), tree.read("g")), ("1".into(), "2".into()));
}

#[test]
fn in_a_copy_whiteouts_are_just_names() {
    let tree = Tree::new();
    tree.copy(&tar_of(&[file("f", b"1"), file(".wh.f", b"2")]), "", false).unwrap();
    assert_eq!((tree.read("f"), tree.read(".wh.f")), ("1".into(), "2".into()));
}

#[test]
fn the_last_of_several_entries_counts_and_the_tar_is_still_known() {
    let tree = Tree::new();
    let tar = tar_of(&[
        file("f", b"one"),
        file("f", b"two"),
        dir("d"),
        file("d/x", b"below"),
        file("d", b"now a file"),
        file("f", b"three"),
    ]);
    let applied = tree.layer(&tar).unwrap();
    assert_eq!((tree.read("f"), tree.read("d")), ("three".into(), "now a file".into()));
    assert!(applied.replaced);
    assert_eq!(tree.tar_again(), tar);
}

#[test]
fn a_tar_through_links_is_still_known() {
    let tree = Tree::new();
    let symlink = tar::EntryType::Symlink;
    let tar = tar_of(&[
        dir("real"),
        link("l", symlink, "real"),
        file("l/f", b"data"),
        file("real/f", b"other"),
    ]);
    tree.layer(&tar).unwrap();
    assert_eq!(tree.read("real/f"), "other");
    assert_eq!(tree.tar_again(), tar);
}

#[test]
fn what_follows_the_end_belongs_to_the_tar() {
    let tree = Tree::new();
    let mut tar = tar_of(&[file("f", b"data")]);
    tar.extend([0; 8192]);
    tar.extend(b"garbage behind the end");
    tree.layer(&tar).unwrap();
    assert_eq!(tree.tar_again(), tar);
}

#[test]
fn a_cut_tar_is_an_error() {
    let whole = tar_of(&[file("f", &[7; 2000])]);
    for cut in [700, 511, 513, 2000] {
        let answer = Tree::new().layer(&whole[..cut]);
        assert!(matches!(answer, Err(Error::Truncated)), "{cut}: {answer:?}");
    }
    let garbage = Tree::new().layer(&b"garbage ".repeat(200));
    assert!(matches!(garbage, Err(Error::Header)), "{garbage:?}");
}

#[test]
fn numbers_beyond_their_range_are_refused() {
    for (key, value) in
        [("uid", "4294967296"), ("gid", "4294967295"), ("size", "99999999999999999999")]
    {
        let mut entry = file("f", b"");
        let pax = [(key, value.as_bytes())];
        entry.pax = &pax;
        assert!(Tree::new().layer(&tar_of(&[entry])).is_err(), "{key}={value}");
    }
}

#[test]
fn an_extended_header_is_bounded() {
    let huge = vec![b'x'; 2 << 20];
    let mut entry = file("f", b"");
    let pax = [("comment", huge.as_slice())];
    entry.pax = &pax;
    assert!(matches!(Tree::new().layer(&tar_of(&[entry])), Err(Error::TooMany(_))));
}

#[test]
fn what_is_kept_in_memory_until_the_end_is_bounded() {
    // One directory again and again, each time with attributes that are set at the end.
    let value = vec![b'x'; 900_000];
    let pax = [("SCHILY.xattr.user.x", value.as_slice())];
    let again = || {
        let mut entry = dir("d");
        entry.pax = &pax;
        entry
    };
    let many: Vec<Made<'_>> = (0..80).map(|_| again()).collect();
    let refused = Tree::new().layer(&tar_of(&many));
    assert!(matches!(refused, Err(Error::TooMany("directories"))), "{refused:?}");
    // As many as that: each takes the place of the one before.
    let many: Vec<Made<'_>> = (0..10_002).map(|_| file("f", b"")).collect();
    let refused = Tree::new().layer(&tar_of(&many));
    assert!(matches!(refused, Err(Error::TooMany("entries of the same name"))), "{refused:?}");
    let tree = Tree::new();
    tree.layer(&tar_of(&many[..1001])).unwrap();
    assert_eq!(tree.tar_again(), tar_of(&many[..1001]));
}

#[test]
fn a_sparse_map_is_checked_before_anything_is_made() {
    for map in ["0,5,3,5", "0,18446744073709551615", "0,1,9999999999999,1", "5", "0,4"] {
        let mut entry = file("f", b"12345");
        let pax = [("GNU.sparse.map", map.as_bytes()), ("GNU.sparse.size", b"100".as_slice())];
        entry.pax = &pax;
        assert!(Tree::new().layer(&tar_of(&[entry])).is_err(), "{map}");
    }
}

#[test]
fn a_sparse_file_keeps_its_holes() {
    let tree = Tree::new();
    let mut entry = file("f", b"headtail");
    let pax = [
        ("GNU.sparse.map", b"0,4,1048576,4".as_slice()),
        ("GNU.sparse.size", b"1048580".as_slice()),
    ];
    entry.pax = &pax;
    let tar = tar_of(&[entry]);
    tree.layer(&tar).unwrap();
    let meta = fs::metadata(tree.path("f")).unwrap();
    assert_eq!(meta.len(), 1_048_580);
    assert!(meta.blocks() * 512 < 100_000);
    let bytes = fs::read(tree.path("f")).unwrap();
    assert_eq!((&bytes[..4], &bytes[1_048_576..]), (b"head".as_slice(), b"tail".as_slice()));
    assert_eq!(tree.tar_again(), tar);
}

#[test]
fn gnu_tar_and_we_agree_on_sparse_files() {
    let tree = Tree::new();
    let source = tree.dir.path().join("outside");
    let sparse = File::create(source.join("s")).unwrap();
    use std::os::unix::fs::FileExt;
    for n in 0..40_u64 {
        sparse.write_all_at(b"piece", n * 100_000).unwrap();
    }
    sparse.set_len(10_000_000).unwrap();
    for format in ["--format=gnu", "--format=pax"] {
        let tree = Tree::new();
        let made = std::process::Command::new("tar")
            .args(["-S", format, "-cf", "-", "-C"])
            .arg(&source)
            .arg("s")
            .output()
            .unwrap();
        tree.layer(&made.stdout).unwrap();
        assert_eq!(
            fs::read(tree.path("s")).unwrap(),
            fs::read(source.join("s")).unwrap(),
            "{format}"
        );
        assert_eq!(tree.tar_again(), made.stdout, "{format}");
    }
}

#[test]
fn an_overlays_private_attributes_are_not_taken() {
    let tree = Tree::new();
    let mut entry = file("f", b"");
    let pax = [
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc".as_slice()),
        ("SCHILY.xattr.user.mine", b"1".as_slice()),
    ];
    entry.pax = &pax;
    tree.layer(&tar_of(&[entry])).unwrap();
    let f = File::open(tree.path("f")).unwrap();
    assert_eq!(cleat_sys::xattr::get(&f, b"user.mine").unwrap().unwrap(), b"1");
    assert_eq!(cleat_sys::xattr::get(&f, b"trusted.overlay.redirect").unwrap(), None);
}

#[test]
fn setuid_survives_the_change_of_owner() {
    let tree = Tree::new();
    let mut su = file("su", b"x");
    su.mode = 0o4755;
    su.uid = 1000;
    tree.layer(&tar_of(&[su])).unwrap();
    let meta = fs::metadata(tree.path("su")).unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.uid()), (0o4755, 1000));
}

#[test]
fn a_copy_can_be_told_to_keep_kinds() {
    let tree = Tree::new();
    fs::create_dir(tree.path("etc")).unwrap();
    fs::write(tree.path("f"), "").unwrap();
    let over = tree.copy(&tar_of(&[file("etc", b"x")]), "", true).unwrap_err();
    assert!(over.to_string().starts_with("cannot overwrite directory"), "{over}");
    let under = tree.copy(&tar_of(&[dir("f")]), "", true).unwrap_err();
    assert!(under.to_string().starts_with("cannot overwrite non-directory"), "{under}");
    tree.copy(&tar_of(&[file("etc", b"x")]), "", false).unwrap();
    assert_eq!(tree.read("etc"), "x");
}

#[test]
fn other_trees_stand_in_for_directories() {
    let tree = Tree::new();
    fs::create_dir_all(tree.path("data/v")).unwrap();
    symlink("data/v", tree.path("l")).unwrap();
    let volume = tempfile::tempdir().unwrap();
    let locked = tempfile::tempdir().unwrap();
    let mut view = tree.view();
    view.insert(b"/data/v", File::open(volume.path()).unwrap().into(), false);
    view.insert(b"/ro", File::open(locked.path()).unwrap().into(), true);
    let put = |view: &View, tar: &[u8]| {
        let mut reader = reader(Cursor::new(tar.to_vec()), None);
        apply(&mut reader, view, b"", Flavor::Copy { keep_kind: false, owner: None })
    };
    put(&view, &tar_of(&[file("l/a", b"1"), file("data/v/b/c", b"2"), file("data/x", b"3")]))
        .unwrap();
    assert_eq!(fs::read_to_string(volume.path().join("a")).unwrap(), "1");
    assert_eq!(fs::read_to_string(volume.path().join("b/c")).unwrap(), "2");
    assert_eq!(tree.read("data/x"), "3");
    assert_eq!(fs::read_dir(tree.path("data/v")).unwrap().count(), 0);
    fs::create_dir(tree.path("ro")).unwrap();
    assert!(matches!(put(&view, &tar_of(&[file("ro/a", b"")])), Err(Error::ReadOnly { .. })));
    assert!(put(&view, &tar_of(&[file("data/v", b"")])).is_err());
}

#[test]
fn a_fifo_is_packed_and_not_read() {
    let tree = Tree::new();
    nix::unistd::mkfifo(&tree.path("p"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let tar = packed(&tree);
    let other = Tree::new();
    other.layer(&tar).unwrap();
    assert!(fs::symlink_metadata(other.path("p")).unwrap().file_type().is_fifo());
}

fn packed(tree: &Tree) -> Vec<u8> {
    let view = tree.view();
    let mut packer = Packer::new(Vec::new());
    packer.contents(&view, &view.find(b"/", true).unwrap()).unwrap();
    packer.finish().unwrap()
}

/// A tree as text: what a test compares.
fn describe(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let what = if meta.is_dir() {
                pending.push(path.clone());
                String::new()
            } else if meta.is_symlink() {
                format!("-> {:?}", fs::read_link(&path).unwrap())
            } else if meta.is_file() {
                format!("{:?} x{}", fs::read(&path).unwrap(), meta.nlink())
            } else {
                format!("device {}", meta.rdev())
            };
            let owner = (meta.mode(), meta.uid(), meta.gid(), meta.mtime());
            lines.push(format!("{name} {owner:?} {what}"));
        }
    }
    lines.sort();
    lines
}

#[derive(Clone, Debug)]
enum Plant {
    File { data: Vec<u8>, mode: u32, uid: u32 },
    Dir { mode: u32 },
    Link { to: String },
    Hard { to: usize },
    Fifo,
}

fn plant() -> impl Strategy<Value = Plant> {
    prop_oneof![
        (prop::collection::vec(any::<u8>(), 0..1500), 0_u32..0o10000, 0_u32..5_000_000)
            .prop_map(|(data, mode, uid)| Plant::File { data, mode, uid }),
        (0_u32..0o10000).prop_map(|mode| Plant::Dir { mode }),
        "[a-z./é]{1,150}".prop_map(|to| Plant::Link { to }),
        (0_usize..8).prop_map(|to| Plant::Hard { to }),
        Just(Plant::Fifo),
    ]
}

fn grow(root: &Path, plants: &[(Vec<String>, Plant)]) {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut dirs: Vec<(PathBuf, u32)> = Vec::new();
    for (names, plant) in plants {
        let path = names.iter().fold(root.to_owned(), |path, name| path.join(name));
        if fs::create_dir_all(path.parent().unwrap()).is_err() || path.symlink_metadata().is_ok() {
            continue;
        }
        let mode = |mode: &u32| fs::Permissions::from_mode(*mode);
        match plant {
            Plant::File { data, mode: bits, uid } => {
                fs::write(&path, data).unwrap();
                std::os::unix::fs::chown(&path, Some(*uid), Some(7)).unwrap();
                fs::set_permissions(&path, mode(bits)).unwrap();
                files.push(path);
            }
            Plant::Dir { mode: bits } => {
                fs::create_dir(&path).unwrap();
                dirs.push((path, *bits));
            }
            Plant::Link { to } => symlink(to, &path).unwrap(),
            Plant::Hard { to } => {
                if let Some(target) = files.get(*to) {
                    fs::hard_link(target, &path).unwrap();
                }
            }
            Plant::Fifo => {
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap()
            }
        }
    }
    for (path, bits) in dirs {
        fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_is_packed_comes_out_the_same(
        plants in prop::collection::vec(
            (prop::collection::vec("[a-c]{1,2}|[a-z]{60,90}|é", 1..4), plant()), 0..25)
    ) {
        let source = Tree::new();
        grow(&source.path(""), &plants);
        let tar = packed(&source);
        let target = Tree::new();
        let applied = target.layer(&tar).unwrap();
        prop_assert!(!applied.replaced);
        prop_assert_eq!(describe(&source.path("")), describe(&target.path("")));
        // And the recipe gives the same tar again.
        prop_assert_eq!(target.tar_again(), tar);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000), at in 0_usize..2000) {
        let tree = Tree::new();
        let _ = tree.layer(&bytes);
        let mut tar = tar_of(&[file("f", &[1; 600]), link("l", tar::EntryType::Symlink, "f")]);
        let at = at.min(tar.len());
        let end = (at + bytes.len()).min(tar.len());
        tar[at..end].copy_from_slice(&bytes[..end - at]);
        let tree = Tree::new();
        let _ = tree.layer(&tar);
        tree.nothing_escaped();
    }
}

#[test]
fn layers_of_every_compression_are_read() {
    use super::{
        chunks::{ChunkReader, Received},
        compression::decompressed,
    };
    let tar = tar_of(&[file("f", b"data")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&tar).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&tar).unwrap();
    let all = [
        tar.clone(),
        gzip.finish().unwrap(),
        bzip2.finish().unwrap(),
        xz.finish().unwrap(),
        zstd::encode_all(tar.as_slice(), 1).unwrap(),
    ];
    let send = |bytes: &[u8]| {
        let (sender, received) = Received::channel();
        for piece in bytes.chunks(700) {
            sender.blocking_send(Ok(bytes::Bytes::copy_from_slice(piece))).unwrap();
        }
        drop(sender);
        received
    };
    for bytes in all {
        let mut out = Vec::new();
        let chunks = decompressed(send(&bytes)).unwrap();
        std::io::Read::read_to_end(&mut ChunkReader::new(chunks), &mut out).unwrap();
        assert_eq!(out, tar);
        if bytes.len() != tar.len() {
            let cut = decompressed(send(&bytes[..bytes.len() / 2])).unwrap();
            let mut reader = reader(ChunkReader::new(cut), None);
            let tree = Tree::new();
            let flavor = Flavor::Copy { keep_kind: false, owner: None };
            let error = apply(&mut reader, &tree.view(), b"", flavor).unwrap_err();
            assert_eq!(error.kind(), cleat_proto::kind::Kind::Internal, "{error:?}");
        }
    }
}
