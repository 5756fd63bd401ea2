//! What `scripts/release` packs: the same bytes each time, with sums that are right and an installer that refuses what has another
//! sum. The programs in it are stand-ins that call the ones under test, so that nothing has to be compressed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{collections::BTreeMap, fs};

use super::hints::scan;
use serde_json::Value;
use tests::binaries::binary;

fn run(program: &str, arguments: &[&str], folder: &Path) -> Output {
    Command::new(program).args(arguments).current_dir(folder).output().expect("it starts")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn done(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = run(program, arguments, folder);
    assert!(output.status.success(), "{program} {arguments:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn sum(file: &Path) -> String {
    let line = done("sha256sum", &[file.to_str().unwrap()], file.parent().unwrap());
    line.split_whitespace().next().expect("a sum").to_owned()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries =
        fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it can be read").path());
    entries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
        .collect()
}

fn pack(work: &Path, name: &str) -> PathBuf {
    let programs = work.join("programs");
    fs::create_dir_all(&programs).unwrap();
    for program in ["backup", "restore", "safe-run"] {
        let text = format!("#!/bin/sh\nexec '{}' \"$@\"\n", binary(program).display());
        fs::write(programs.join(program), text).unwrap();
        fs::set_permissions(programs.join(program), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let out = work.join(name);
    let script = scan::root().join("scripts/release");
    let output = Command::new(script)
        .args(["pack", programs.to_str().unwrap(), out.to_str().unwrap()])
        // Both are given: a clone without history, or a tarball, packs the same way.
        .env("SOURCE_DATE_EPOCH", "1764547200")
        .env("CARGO_NET_OFFLINE", "true")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    out
}

/// The image's layer, by way of index, manifest and sums, as a runtime would find it.
fn layer_of_the_image(unpacked: &Path) -> PathBuf {
    let blob = |descriptor: &Value| {
        let digest =
            descriptor["digest"].as_str().expect("a digest").strip_prefix("sha256:").expect("of that kind");
        let path = unpacked.join("blobs/sha256").join(digest);
        let bytes = fs::read(&path).expect("the blob is there");
        assert_eq!((sum(&path).as_str(), bytes.len() as u64), (digest, descriptor["size"].as_u64().unwrap()));
        (path, bytes)
    };
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("it is JSON");
    assert_eq!(json(&fs::read(unpacked.join("oci-layout")).unwrap())["imageLayoutVersion"], "1.0.0");
    let index = json(&fs::read(unpacked.join("index.json")).unwrap());
    let manifest = json(&blob(&index["manifests"][0]).1);
    assert_eq!(json(&blob(&manifest["config"]).1)["rootfs"]["type"], "layers");
    blob(&manifest["layers"][0]).0
}

#[test]
fn a_release_is_packed_to_the_same_bytes_and_installs_and_goes_again() {
    let work = tempfile::tempdir().unwrap();
    let (work, version) = (work.path(), env!("CARGO_PKG_VERSION"));
    let one = pack(work, "one");
    let two = pack(work, "two");
    let made = files(&one);
    assert!(made == files(&two), "two runs differ in {:?}", made.keys());

    let sums = String::from_utf8(made["SHA256SUMS"].clone()).unwrap();
    assert_eq!(sums.lines().count(), made.len() - 1, "{sums}");
    done("sha256sum", &["--strict", "-c", "SHA256SUMS"], &one);

    let bill: Value = serde_json::from_slice(&made[&format!("safe-run-{version}.cdx.json")]).unwrap();
    let names: Vec<&str> =
        bill["components"].as_array().unwrap().iter().filter_map(|part| part["name"].as_str()).collect();
    for (name, is_in) in [("safe-run", true), ("rustls", true), ("insta", false), ("tests", false)] {
        assert_eq!(names.contains(&name), is_in, "{name}: {names:?}");
    }

    let installer = one.join("install.sh").to_str().unwrap().to_owned();
    let prefix = work.join("prefix").to_str().unwrap().to_owned();
    let version_line = done("sh", &[&installer, "--prefix", &prefix], work);
    assert!(version_line.starts_with(&format!("safe-run {version}\n")), "{version_line}");
    for file in [
        "bin/backup",
        "share/man/man1/restore.1.gz",
        "share/zsh/site-functions/_safe-run",
        "share/safe-run/demo/scripts/demo",
    ] {
        assert!(Path::new(&prefix).join(file).is_file(), "{file}");
    }
    done("sh", &[&installer, "--uninstall", "--prefix", &prefix], work);
    assert_eq!(done("find", &[&prefix, "-type", "f"], work), "");

    let archive = one.join(format!("safe-run-{version}-linux-{}.tar.gz", std::env::consts::ARCH));
    let image = archive.with_extension("").with_extension("oci.tar");
    let unpacked = work.join("image");
    fs::create_dir(&unpacked).unwrap();
    done("tar", &["-xf", image.to_str().unwrap()], &unpacked);
    let layer = layer_of_the_image(&unpacked);
    done("tar", &["-xzf", layer.to_str().unwrap()], &unpacked);
    done("./usr/local/bin/backup", &["--version"], &unpacked);

    let refused = run("sh", &[&installer, "--prefix", &prefix, "--sha256", &"0".repeat(64)], work);
    assert!(
        !refused.status.success() && said(&refused).contains("not the release you meant"),
        "{}",
        said(&refused)
    );
    let mut damaged = fs::read(&archive).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&archive, damaged).unwrap();
    let refused = run("sh", &[&installer, "--prefix", &prefix], work);
    assert!(
        !refused.status.success() && said(&refused).contains("get it again; nothing was installed"),
        "{}",
        said(&refused)
    );
    assert_eq!(done("find", &[&prefix, "-type", "f"], work), "");
    debian_package(&two, work);
}

/// Made where there is dpkg-deb, and looked at there.
fn debian_package(out: &Path, work: &Path) {
    let Some(package) = files(out).into_keys().find(|name| name.ends_with(".deb")) else {
        assert!(
            Command::new("dpkg-deb").arg("--version").output().is_err(),
            "dpkg-deb is here, and there is no package"
        );
        return;
    };
    let (package, tree) = (out.join(package).to_str().unwrap().to_owned(), work.join("deb"));
    done("dpkg-deb", &["-R", &package, tree.to_str().unwrap()], work);
    done("md5sum", &["--quiet", "-c", "DEBIAN/md5sums"], &tree);
    for script in ["postinst", "prerm", "postrm"] {
        done("sh", &["-n", &format!("DEBIAN/{script}")], &tree);
    }
    let unit = fs::read_to_string(tree.join("usr/lib/systemd/system/safe-run-backup.service")).unwrap();
    assert!(unit.starts_with("[Unit]\n") && unit.contains("ExecStart=/usr/bin/backup schedule"), "{unit}");
    assert!(
        tree.join("usr/bin/restore").is_file() && tree.join("usr/share/doc/safe-run/copyright").is_file()
    );
}
