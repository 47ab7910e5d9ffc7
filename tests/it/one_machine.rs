//! What is shipped for one machine, `deploy/compose` and `deploy/systemd`: read by the programs that will read it.
//!
//! Invariant: a file of these folders that its own program would refuse fails here, and so does one that grants more than
//! its README says.

use crate::harness::{Engine, Site, eventually, tool};
use nightshift::config::Config;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(deploy(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The compose file as compose itself understands it.
fn composed(files: &[&str]) -> Value {
    let mut command = Command::new(tool("docker-compose"));
    for file in files {
        command.arg("--file").arg(deploy("compose").join(file));
    }
    command.args(["--profile", "gpu", "config", "--format", "json"]).env_remove("MODELS").env("DOCKER_GID", "998");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn compose_takes_the_files_and_no_service_gets_more_than_it_needs() {
    let all = composed(&["compose.yaml", "compose.gpu.yaml"]);
    let services = all["services"].as_object().unwrap();
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(names, ["alertmanager", "dcgm-exporter", "grafana", "nightshift", "prometheus"]);
    for (name, service) in services {
        assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
        assert_eq!(service["security_opt"], serde_json::json!(["no-new-privileges:true"]), "{name}");
        assert_eq!(service["read_only"], true, "{name}");
        assert!(service["privileged"].is_null() && service["network_mode"].is_null(), "{name}");
        assert!(service["healthcheck"]["test"].is_array(), "{name} has no health check");
        assert!(service["networks"].as_object().unwrap().contains_key("inside"), "{name}");
        for port in service["ports"].as_array().into_iter().flatten() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name} is published beyond this machine");
        }
        let mounts = service["volumes"].as_array().into_iter().flatten();
        let sockets =
            mounts.filter(|mount| mount["source"].as_str().is_some_and(|source| source.contains("docker.sock")));
        assert_eq!(sockets.count(), 0, "{name} and Docker's socket");
        let user = service["user"].as_str().unwrap_or_default();
        assert!(name != "nightshift" || (user == "65532:65532" && service["cap_add"].is_null()), "{service}");
        assert!(name != "nightshift" || service["devices"].is_null(), "{service}");
        // What is warmed is charged to the container: a limit would push it out again.
        assert!(name != "nightshift" || service["mem_limit"].is_null());
    }
    assert_eq!(all["networks"]["inside"]["internal"], true);
    let gpu = |all: &Value| all["services"]["nightshift"]["deploy"]["resources"]["reservations"]["devices"].is_array();
    assert!(gpu(&all) && !gpu(&composed(&["compose.yaml"])));
}

/// Each of these files gives one thing more, and only when it is named.
#[test]
fn docker_and_the_kernel_log_are_given_by_files_of_their_own() {
    let of = |file: &str| composed(&["compose.yaml", file])["services"]["nightshift"].clone();
    let sources = |service: &Value| -> Vec<String> {
        let mounts = service["volumes"].as_array().unwrap().iter();
        mounts.filter_map(|mount| mount["source"].as_str().map(str::to_owned)).collect()
    };
    let plain = composed(&["compose.yaml"])["services"]["nightshift"].clone();
    let (docker, node) = (of("compose.docker.yaml"), of("compose.node.yaml"));
    let mut added = sources(&docker);
    added.retain(|source| !sources(&plain).contains(source));
    assert_eq!(added, ["/var/run/docker.sock"]);
    assert_eq!((&docker["user"], &docker["group_add"]), (&json!("65532:65532"), &json!(["998"])));
    assert!(docker["cap_add"].is_null() && docker["devices"].is_null(), "{docker}");
    assert_eq!(sources(&node), sources(&plain));
    assert_eq!((&node["user"], &node["cap_add"]), (&json!("0:0"), &json!(["DAC_OVERRIDE", "FOWNER", "SYSLOG"])));
    assert_eq!(node["cap_drop"], json!(["ALL"]));
    // Without the group of the socket the file says which command finds it.
    let mut command = Command::new(tool("docker-compose"));
    for file in ["compose.yaml", "compose.docker.yaml"] {
        command.arg("--file").arg(deploy("compose").join(file));
    }
    let output = command.args(["config", "--quiet"]).env_remove("DOCKER_GID").output().unwrap();
    assert!(!output.status.success() && said(&output).contains("stat --format %g"), "{}", said(&output));
}

/// The shipped settings with the lines of these marks turned on, as compose.*.yaml ask for.
pub fn turned_on(marks: &[&str]) -> String {
    let mut text = read("compose/nightshift.yaml");
    for (mark, off, on) in [
        ("docker", "# docker:\n#   socket: /var/run/docker.sock\n", "docker:\n  socket: /var/run/docker.sock\n"),
        ("node", "  kernel_log: /etc/nightshift/site/no-kernel-log\n", ""),
        ("node", "  # kernel_log: /dev/kmsg\n", "  kernel_log: /dev/kmsg\n"),
    ] {
        assert!(text.contains(off), "{off}");
        if marks.contains(&mark) {
            text = text.replace(off, on);
        }
    }
    text
}

#[test]
fn the_engine_reaches_docker_only_where_its_lines_are_turned_on() {
    let config = |marks: &[&str]| {
        let config = Config::parse("compose", &turned_on(marks)).unwrap();
        assert_eq!(config.check(), []);
        config
    };
    assert!(config(&[]).docker.is_none());
    let on = config(&["docker", "node"]);
    assert!(on.docker.is_some());
    assert_eq!(on.agent.kernel_log, Path::new("/dev/kmsg"));
}

#[test]
fn every_secret_of_the_compose_file_is_made_once_and_is_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("make-secrets.sh");
    std::fs::copy(deploy("compose/make-secrets.sh"), &script).unwrap();
    assert!(Command::new(&script).status().unwrap().success());
    let folder = dir.path().join("secrets");
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let wanted: BTreeSet<String> =
        composed(&["compose.yaml"])["secrets"].as_object().unwrap().keys().cloned().collect();
    let found = || -> Vec<(String, String)> {
        let mut list: Vec<(String, String)> = std::fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .map(|file| (file.file_name().into_string().unwrap(), std::fs::read_to_string(file.path()).unwrap()))
            .collect();
        list.sort();
        list
    };
    let first = found();
    assert_eq!(first.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>(), wanted);
    assert!(first.iter().all(|(_, text)| text.len() == 64), "{first:?}");
    assert!(Command::new(&script).status().unwrap().success());
    assert_eq!(found(), first, "what is there is kept");
}

/// A shipped file with the container's paths made those of this machine.
fn here(dir: &TempDir, name: &str, paths: &[(&str, &Path)]) -> PathBuf {
    let mut text = read(name);
    for (theirs, ours) in paths {
        assert!(text.contains(theirs), "{name} speaks no more of {theirs}");
        text = text.replace(theirs, &ours.display().to_string());
    }
    let path = dir.path().join(Path::new(name).file_name().unwrap());
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn prometheus_alertmanager_and_nightshift_take_the_shipped_settings() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = dir.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    for name in ["alertmanager-token", "metrics-token"] {
        std::fs::write(secrets.join(name), "0123456789abcdef0123456789abcdef").unwrap();
    }
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/prometheus");
    let targets = deploy("compose/targets");
    let paths: [(&str, &Path); 3] =
        [("/run/secrets", &secrets), ("/etc/prometheus/rules", &rules), ("/etc/prometheus/targets", &targets)];
    let prometheus = here(&dir, "compose/prometheus.yml", &paths);
    let output = Command::new(tool("promtool")).args(["check", "config"]).arg(prometheus).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));

    let alertmanager = here(&dir, "compose/alertmanager.yml", &paths[..1]);
    let output = Command::new(tool("amtool")).arg("check-config").arg(alertmanager).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));

    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = dir.path().join("data");
    let trees = home.join("");
    let paths: [(&str, &Path); 3] =
        [("/run/secrets", &secrets), ("/etc/nightshift/", &trees), ("/var/lib/nightshift", &data)];
    let nightshift = here(&dir, "compose/nightshift.yaml", &paths);
    let check = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
        command.arg("--config").arg(&nightshift).args(args).current_dir(dir.path()).output().unwrap()
    };
    let output = check(&["check"]);
    assert!(output.status.success(), "{}", said(&output));
    let output = check(&["config", "--effective"]);
    assert!(output.status.success() && said(&output).contains("mode_ceiling: observe"), "{}", said(&output));
}

#[test]
fn the_address_that_alertmanager_writes_to_is_a_source_of_the_configuration() {
    let config = Config::parse("compose", &read("compose/nightshift.yaml")).unwrap();
    assert_eq!(config.check(), []);
    let url = format!("http://nightshift:{}/in/alertmanager/prod", config.server.listen.port());
    assert!(read("compose/alertmanager.yml").contains(&url));
    assert!(config.sources.contains_key("prod") && config.docker.is_none());
    // In plain HTTP a cookie goes to every port of its host name, and Grafana is on another port of 127.0.0.1.
    assert_eq!(config.server.public_url.as_deref(), Some("http://nightshift.localhost:7676"));
    // In the image, the shipped rules lie where the configuration looks for them.
    let image = read("Containerfile");
    for folder in [&config.rules_dir, &config.runbooks_dir, &config.integrations_dir] {
        assert!(image.contains(&folder.display().to_string()), "{}", folder.display());
    }
}

#[test]
fn the_dashboard_asks_only_for_metrics_that_exist() {
    let board: Value = serde_json::from_str(&read("compose/grafana/dashboards/nightshift.json")).unwrap();
    let known = nightshift::telemetry::reference();
    let name = regex::Regex::new(r"nightshift_[a-z_]+").unwrap();
    let mut seen = BTreeSet::new();
    for target in board["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        for found in name.find_iter(target["expr"].as_str().unwrap()) {
            assert!(known.contains(&format!("`{}`", found.as_str())), "there is no metric {}", found.as_str());
            seen.insert(found.as_str().to_owned());
        }
    }
    assert!(seen.len() >= 5, "{seen:?}");
    for file in ["datasources/prometheus.yaml", "dashboards/nightshift.yaml"] {
        let text = read(&format!("compose/grafana/provisioning/{file}"));
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(value["apiVersion"], 1, "{file}");
    }
}

#[test]
fn the_units_are_hardened_and_systemd_understands_them() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["nightshift.service", "nightshift-agent.service"] {
        let text = read(&format!("systemd/{name}"));
        for line in [
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "ProtectHome=yes",
            "PrivateTmp=yes",
            "RestrictSUIDSGID=yes",
            "SystemCallArchitectures=native",
            "UMask=0077",
        ] {
            assert!(text.lines().any(|found| found == line), "{name} lacks {line}");
        }
        let binary = Path::new(env!("CARGO_BIN_EXE_nightshift"));
        let unit = here(&dir, &format!("systemd/{name}"), &[("/usr/bin/nightshift", binary)]);
        // A machine without systemd has nothing that could read them.
        let Ok(output) = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output() else {
            continue;
        };
        assert!(output.status.success() && said(&output).is_empty(), "{name}: {}", said(&output));
    }
    let agent = read("systemd/nightshift-agent.service");
    assert!(agent.contains("ProtectKernelModules=yes\n") && agent.contains("ProtectKernelTunables=yes\n"));
    assert!(agent.contains("DevicePolicy=closed") && agent.contains("DeviceAllow=/dev/kmsg r\n"));
    assert!(agent.contains("MemoryMax=infinity"), "the page cache is charged to the unit");
}

/// The engine with its agent inside and no cluster, and a stand-in for NVIDIA's tools that counts.
struct Alone {
    site: Site,
    engine: Engine,
}

impl Alone {
    async fn start(guards: &str) -> Alone {
        let runbooks = [
            ("reset", "//! Reset.\n//!\n//! scope: node\n\ngpu::reset(\"this-one\", 3);\n"),
            ("reboot", "//! Reboot.\n//!\n//! scope: node\n\nnode::reboot(\"this-one\");\n"),
        ];
        let site = Site::new("", "rules: []\n", &runbooks);
        let place = site.path().join("machine");
        std::fs::create_dir(&place).unwrap();
        let f = place.display();
        for name in ["nvidia-smi", "reboot"] {
            let tool = place.join(name);
            std::fs::write(&tool, format!("#!/bin/sh\necho {name} \"$@\" >>{f}/count\n")).unwrap();
            std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::fs::write(place.join("kernel.log"), "").unwrap();
        std::fs::write(place.join("boot"), "boot-1").unwrap();
        let extra = format!(
            "agent:\n  node: this-one\n  nvidia_smi: {f}/nvidia-smi\n  reboot: [{f}/reboot]\n  kernel_log: {f}/kernel.log\n  \
             boot_id: {f}/boot\n  kill_file: {f}/stop\n{guards}"
        );
        let config = site.path().join("nightshift.yaml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text + &extra).unwrap();
        let engine = site.start_with(&["--with-agent"], &[]).await.unwrap();
        eventually("the agent inside", async || {
            let answer = engine.get("/api/v1/agents").await?;
            (answer["agents"][0]["connected"] == true).then_some(())
        })
        .await;
        Alone { site, engine }
    }

    /// How a run by hand in mode auto stands once it does not go on by itself.
    async fn run(&self, runbook: &str) -> Value {
        let body = json!({ "runbook": runbook, "mode": "auto" });
        let (status, run) = self.engine.post("/api/v1/runs", &body).await.unwrap();
        assert_eq!(status, 201, "{run}");
        let path = format!("/api/v1/runs/{}", run["run"]["id"].as_str().unwrap());
        eventually("the run's end", async || {
            let run = self.engine.get(&path).await?["run"].clone();
            let state = run["state"]["is"].as_str()?.to_owned();
            (!["ready", "waiting", "held"].contains(&state.as_str())).then(|| run["state"].clone())
        })
        .await
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.site.path().join("machine/count")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn on_one_machine_without_a_cluster_a_gpu_is_reset_as_shipped_and_the_machine_only_where_the_site_says_so() {
    let alone = Alone::start("").await;
    let state = alone.run("reset").await;
    assert_eq!(state["is"], "done", "{state}");
    assert_eq!(alone.calls(), ["nvidia-smi --gpu-reset -i 3"]);
    let state = alone.run("reboot").await;
    assert_eq!(state["is"], "refused", "{state}");
    assert!(state.to_string().contains("guards: { only_node: true }"), "{state}");
    assert_eq!(alone.calls().len(), 1, "nothing was booted");

    let alone = Alone::start("guards: { only_node: true }\n").await;
    let state = alone.run("reboot").await;
    assert_eq!(state["is"], "asking", "people are asked all the same: {state}");
    assert_eq!(alone.calls(), [""; 0]);
}
