//! The service `nightshift` of deploy/compose, started by Docker Compose itself in a real engine, with the program that
//! was just built in an image made of a tar.
//!
//! What cannot be had here is taken out by an override: the other services' images, and networks (the engine of the tests has no
//! bridge). Command, user, capabilities, read-only root, devices, mounts, secrets and the health check are the shipped ones.
//!
//! Invariant: healthy is what Docker says after the shipped check, never what we say of ourselves.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

/// The root of an image: the program, what it is linked with, and what deploy/Containerfile lays beside it.
fn image(engine: &Engine) {
    let root = engine.dir.path().join("root");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_BIN_EXE_nightshift"));
    let copy = |from: &Path, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        let status = Command::new("cp").args(["--recursive", "--dereference"]).arg(from).arg(&to).status().unwrap();
        assert!(status.success(), "{} to {}", from.display(), to.display());
    };
    copy(program, "usr/bin/nightshift");
    let linked = Command::new("ldd").arg(program).output().unwrap();
    for word in String::from_utf8(linked.stdout).unwrap().split_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(word), word);
    }
    // The base image of the Containerfile brings these.
    copy(Path::new("/etc/ssl/certs/ca-certificates.crt"), "etc/ssl/certs/ca-certificates.crt");
    for folder in ["runbooks", "rules", "integrations"] {
        copy(&repository.join(folder), &format!("etc/nightshift/{folder}"));
    }
    copy(&repository.join("deploy/container.yaml"), "etc/nightshift/nightshift.yaml");
    let asks = "//! Containers.\n\nlet found = docker::containers();\nnote(`${found.len()} containers found`);\n";
    std::fs::write(root.join("etc/nightshift/runbooks/containers.rhai"), asks).unwrap();
    // A volume that is mounted there gets its owner and mode.
    let data = root.join("var/lib/nightshift");
    std::fs::create_dir_all(&data).unwrap();
    chown(&data, Some(65_532), Some(65_532)).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    let tar = engine.dir.path().join("nightshift.tar");
    let packed = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status().unwrap();
    assert!(packed.success());
    // As the Containerfile says it; a test of deploy/compose reads the same lines there.
    let changes = ["ENTRYPOINT [\"/usr/bin/nightshift\"]", "WORKDIR /var/lib/nightshift"];
    let file = std::fs::read_to_string(repository.join("deploy/Containerfile")).unwrap();
    assert!(changes.iter().all(|line| file.contains(line)), "{file}");
    let data = ["mkdir --mode=0700 /empty", "COPY --from=build --chown=nonroot:nonroot /empty /var/lib/nightshift"];
    assert!(data.iter().all(|line| file.contains(line)), "{file}");
    let args =
        ["import", "--change", changes[0], "--change", changes[1], &tar.display().to_string(), "nightshift:local"];
    engine.docker(&args);
    std::fs::remove_dir_all(root).unwrap();
    std::fs::remove_file(tar).unwrap();
}

/// A copy of deploy/compose with secrets of its own and the override.
struct Project<'e> {
    engine: &'e Engine,
    dir: PathBuf,
    models: PathBuf,
}

impl Project<'_> {
    fn new(engine: &Engine) -> Project<'_> {
        let (dir, models) = (engine.dir.path().join("compose"), engine.dir.path().join("models"));
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose");
        assert!(Command::new("cp").arg("--recursive").arg(shipped).arg(&dir).status().unwrap().success());
        assert!(Command::new(dir.join("make-secrets.sh")).status().unwrap().success());
        std::fs::create_dir(&models).unwrap();
        let over = "services:\n  nightshift:\n    build: !reset null\n    networks: !reset null\n    ports: !reset []\n    \
                    network_mode: none\n";
        std::fs::write(dir.join("over.yaml"), over).unwrap();
        let socket = format!(
            "services:\n  nightshift:\n    volumes:\n      - {{ type: bind, source: {}, target: /var/run/docker.sock }}\n",
            engine.socket().display()
        );
        std::fs::write(dir.join("socket.yaml"), socket).unwrap();
        Project { engine, dir, models }
    }

    fn compose(&self, files: &[&str], args: &[&str]) -> String {
        let group = std::fs::metadata(self.engine.socket()).unwrap().gid();
        let files = ["compose.yaml", "over.yaml"].iter().chain(files).flat_map(|file| ["--file", file]);
        let output = Command::new(tool("docker-compose"))
            .args(files)
            .args(args)
            .env("DOCKER_GID", group.to_string())
            .current_dir(&self.dir)
            .env("DOCKER_HOST", format!("unix://{}", self.engine.socket().display()))
            .env("MODELS", &self.models)
            .env_remove("NIGHTSHIFT_NODE")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "compose {args:?}: {said}\n{}", self.engine.log());
        said
    }

    /// Turns on the lines of nightshift.yaml that an override file asks for.
    fn turn_on(&self, marks: &[&str]) {
        let text = crate::one_machine::turned_on(marks);
        std::fs::write(self.dir.join("nightshift.yaml"), text).unwrap();
    }

    fn inside(&self, args: &[&str]) -> (bool, String) {
        let mut all = vec!["exec", "nightshift-nightshift-1", "/usr/bin/nightshift"];
        all.extend(args);
        self.engine.try_docker(&all)
    }

    fn inspect(&self) -> Value {
        let text = self.engine.docker(&["inspect", "nightshift-nightshift-1"]);
        serde_json::from_str::<Value>(&text).unwrap()[0].clone()
    }
}

#[tokio::test]
async fn the_service_of_the_compose_file_runs_without_rights_and_each_override_gives_it_one_thing_more() {
    let Some(engine) = Engine::start() else { return };
    image(&engine);
    let project = Project::new(&engine);
    // A model of another user, as a download by hand would be.
    let model = project.models.join("mistral");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("weights.bin"), vec![7; 3_000_000]).unwrap();
    for path in [&model, &model.join("weights.bin")] {
        chown(path, Some(1_234), Some(1_234)).unwrap();
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let logs = || project.engine.try_docker(&["logs", "nightshift-nightshift-1"]).1;
    let up = async |files: &[&str]| {
        project.compose(files, &["up", "--detach", "--no-build", "--no-deps", "nightshift"]);
        eventually("Docker calls it healthy", async || {
            let state = project.inspect()["State"].clone();
            assert!(state["Running"] == true && state["Health"]["Status"] != "unhealthy", "{state:#}: {}", logs());
            println!("{}", state["Health"]);
            (state["Health"]["Status"] == "healthy").then_some(())
        })
        .await;
        let container = project.inspect();
        assert_eq!(container["HostConfig"]["ReadonlyRootfs"], true);
        assert_eq!(container["HostConfig"]["CapDrop"], json!(["ALL"]));
        assert_eq!(container["RestartCount"], 0);
        // Its agent is inside, and nothing of the machine is missing that its settings name.
        let (good, said) = project.inside(&["agents", "-o", "json"]);
        assert!(good && said.contains("gpu-host") && said.contains("inside"), "{said}");
        // The secrets have the mode that they have on the host, where their folder keeps others out.
        let (_, said) = project.inside(&["doctor"]);
        assert!(!said.contains("open to all users"), "{said}");
        assert!(said.contains("http://nightshift.localhost:7676 leads to an engine"), "{said}");
        assert!(!said.contains("is readable by all users") && !logs().contains("is readable by all users"), "{said}");
        assert!(!logs().contains("KernelLogUnreadable") && !logs().contains("panicked"), "{}", logs());
        container
    };
    let ends = |files: &[&str]| {
        project.compose(files, &["stop", "nightshift"]);
        assert_eq!(project.inspect()["State"]["ExitCode"], 0, "it ends by itself within its grace: {}", logs());
    };

    // As it is shipped: a user without rights, and nothing of Docker.
    let container = up(&[]).await;
    assert_eq!(container["Config"]["User"], "65532:65532");
    assert!(container["HostConfig"]["CapAdd"].is_null(), "{}", container["HostConfig"]);
    assert!(!container["Mounts"].to_string().contains("docker.sock"), "{}", container["Mounts"]);
    let (good, said) = project.inside(&["status"]);
    assert!(good && said.contains("0 of 1, 1 allowed at once"), "{said}");
    let (_, said) = project.inside(&["simulate", "containers"]);
    assert!(said.contains("no Docker engine is configured"), "{said}");
    ends(&[]);

    // Docker's socket through its group, by the same user and with the same data.
    project.turn_on(&["docker"]);
    let files = ["compose.docker.yaml", "socket.yaml"];
    let container = up(&files).await;
    assert_eq!(container["Config"]["User"], "65532:65532");
    let (good, said) = project.inside(&["simulate", "containers"]);
    assert!(good && said.contains("0 containers found"), "it asks Docker: {said}");
    ends(&files);

    // The kernel log and models of any owner.
    project.turn_on(&["docker", "node"]);
    let files = ["compose.docker.yaml", "socket.yaml", "compose.node.yaml"];
    let container = up(&files).await;
    assert_eq!(container["Config"]["User"], "0:0");
    let (good, said) = project.inside(&["cache", "warm", "/models/mistral"]);
    assert!(good && said.contains("100.0 % in memory") || said.contains("in memory already"), "{said}");
    ends(&files);
    project.compose(&files, &["down", "--volumes"]);
}
