//! `trafctl web URL`: the page of a store has what its reports say.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use traffic_tests::{Lab, process::Process};

use super::{fails, in_clickhouse, second_node, shipped, store};

const PATIENCE: Duration = Duration::from_secs(60);

/// Asks a server on a socket; returns the status and the document.
fn ask(socket: &Path, request: &str, headers: &str) -> Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer but {answer:?}"))?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

fn get(socket: &Path, path: &str) -> Result<String> {
    let (status, body) = ask(socket, &format!("GET {path}"), "")?;
    ensure!(status == 200, "{path}: {status}\n{body}");
    Ok(body)
}

/// Serves a page on a socket, and ends it with the test.
fn serve(lab: &Lab, socket: &Path, arguments: &[&str]) -> Result<Process> {
    let listen = format!("unix:{}", socket.display());
    let mut command = lab.trafctl(&[&["web"], arguments, &["--listen", &listen]].concat())?;
    let mut web = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let mut address = String::new();
    BufReader::new(web.child().stdout.take().context("its stdout")?).read_line(&mut address)?;
    ensure!(address.trim() == listen, "{address:?}");
    Ok(web)
}

/// Documents of the API, and the commands that print the same of a store.
const COMPARED: [(&str, &str); 6] = [
    ("report?by=day&split=class,direction", "report --by day --split class,direction"),
    ("report?container=101&percentile=95&basis=l2", "report --container 101 --percentile 95 --basis l2"),
    ("report?show=drops&by=day", "report --show drops --by day"),
    ("report?show=balance&by=hour", "report --show balance --by hour"),
    ("top?by_class=true", "top-talkers --by-class"),
    ("gaps?container=102", "gaps --container 102"),
];

fn has_the_figures(lab: &Lab, url: &str) -> Result<()> {
    let socket = lab.path("web.sock");
    let web = serve(lab, &socket, &[url, "--node", "n7"])?;
    for (document, command) in COMPARED {
        let served = get(&socket, &format!("/api/v1/{document}"))?;
        let command: Vec<&str> = command.split(' ').chain(["--store", url, "--node", "n7"]).collect();
        let printed = lab.run_ok(&[&command[..], &["--format", "json"]].concat())?;
        ensure!(served == printed, "{document}:\n{served}\n{printed}");
    }
    // What only the page asks for is as it is from the ledger.
    let file = lab.state_dir().join("ledger.sqlite");
    let of_ledger = lab.path("file.sock");
    let ledger = serve(lab, &of_ledger, &[file.to_str().context("a path")?])?;
    for document in ["overview", "series?by=day", "series?container=101", "months", "containers"] {
        let [stored, expected] = [&socket, &of_ledger]
            .map(|from| get(from, &format!("/api/v1/{document}")).map(|text| text.parse::<Value>()));
        let (stored, expected) = (stored??, expected??);
        ensure!(stored == expected, "{document}:\n{stored:#}\n{expected:#}");
    }
    ensure!(get(&socket, "/")?.contains("<html"));
    let quotas: Value = get(&socket, "/api/v1/quotas")?.parse()?;
    ensure!(quotas["standings"] == serde_json::json!([]), "{quotas:#}");
    // Nothing can be changed, there is nothing live, and other names are refused.
    for (request, headers, expected) in [
        ("POST /api/v1/report", "", 405),
        ("GET /api/v1/rates", "", 404),
        ("GET /api/v1/classes", "", 404),
        ("GET /api/v1/report?show=nothing", "", 400),
        ("GET /api/v1/report?container=999", "", 404),
    ] {
        let (status, body) = ask(&socket, request, headers)?;
        ensure!(status == expected, "{request}: {status}\n{body}");
    }
    ensure!(web.terminate(PATIENCE)?.success() && ledger.terminate(PATIENCE)?.success());
    Ok(())
}

fn has_tenants(lab: &Lab, owner: &str, url: &str) -> Result<()> {
    lab.run_ok(&["store", "assign", owner, "acme", "--container", "101", "--node", "n7"])?;
    let socket = lab.path("tenants.sock");
    let web = serve(lab, &socket, &[url, "--by-tenant"])?;
    let served = get(&socket, "/api/v1/report?by=day")?;
    let command = ["report", "--by", "day", "--store", url, "--by-tenant", "--format", "json"];
    ensure!(served == lab.run_ok(&command)? && served.contains("\"acme\""), "{served}");
    let one: Value = get(&socket, "/api/v1/series?container=acme")?.parse()?;
    ensure!(one["total"]["total"]["bytes"].as_u64() > Some(0), "{one:#}");
    let (status, body) = ask(&socket, "GET /api/v1/report?show=interfaces", "")?;
    ensure!(status == 400 && body.contains("interfaces have no tenants"), "{status} {body}");
    ensure!(web.terminate(PATIENCE)?.success());
    Ok(())
}

#[test]
fn the_page_of_a_store_has_the_figures_of_its_reports() -> Result<()> {
    let (lab, reader) = shipped("store-web")?;
    let server = store(&lab)?;
    let (owner, ship, url) = (server.url("postgres"), server.url("ship"), server.url(&reader));
    lab.run_ok(&["ship", "--once", "--to", &ship])?;
    has_the_figures(&lab, &url)?;
    has_tenants(&lab, &owner, &url)?;
    // Only for those who may read, and know the token.
    fails(&lab, &["web", &ship], "this user may not")?;
    fails(&lab, &["web", "postgresql://x@127.0.0.1:1/z?sslmode=disable"], "cannot connect")?;
    let file = lab.state_dir().join("ledger.sqlite");
    fails(&lab, &["web", file.to_str().context("a path")?, "--by-tenant"], "with the URL of a store")?;
    let token = lab.write("token", "a-token-of-the-page\n")?;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
    let socket = lab.path("token.sock");
    let web = serve(&lab, &socket, &[&url, "--token-file", token.to_str().context("a path")?])?;
    ensure!(ask(&socket, "GET /api/v1/report", "")?.0 == 401);
    let bearer = "Authorization: Bearer a-token-of-the-page\r\n";
    ensure!(ask(&socket, "GET /api/v1/report", bearer)?.0 == 200);
    // A store that is away is said so, and asked again for the next document.
    server.query("alter role reader nologin")?;
    let (status, body) = ask(&socket, "GET /api/v1/report", bearer)?;
    ensure!(status == 503 && body.contains("cannot read the store"), "{status} {body}");
    server.query("alter role reader login")?;
    ensure!(ask(&socket, "GET /api/v1/report", bearer)?.0 == 200);
    ensure!(web.terminate(PATIENCE)?.success());
    Ok(())
}

#[test]
fn the_page_of_a_store_in_clickhouse_has_the_figures_of_its_reports() -> Result<()> {
    let (lab, _) = shipped("ch-web")?;
    let (_server, url) = in_clickhouse(&lab)?;
    has_the_figures(&lab, &url)?;
    has_tenants(&lab, &url, &url)
}

/// Documents of nodes with several calendars, and the commands that print the same.
const IN_CALENDAR: [(&str, &str); 5] = [
    ("report?by=month", "report --by month --tz UTC --billing-day 1"),
    ("report?by=day&tz=Asia/Tokyo", "report --by day --tz Asia/Tokyo --billing-day 1"),
    ("report?by=month&billing_day=7", "report --by month --tz UTC --billing-day 7"),
    ("top", "top-talkers --tz UTC"),
    ("gaps", "gaps --tz UTC"),
];

#[test]
fn the_page_of_nodes_with_several_calendars_has_the_one_that_is_chosen() -> Result<()> {
    let (lab, reader) = shipped("store-zones")?;
    let server = store(&lab)?;
    let url = server.url(&reader);
    fails(&lab, &["web", &url], "no rows yet")?;
    lab.run_ok(&["ship", "--once", "--to", &server.url("ship")])?;
    second_node(&server)?;
    // What has no months needs no billing day.
    server.query("update trafctl.ledger set billing_day = 3 where node = 'n8'")?;
    for command in ["top-talkers", "gaps"] {
        lab.run_ok(&[command, "--store", &url])?;
    }
    server.query("update trafctl.ledger set zone = 'UTC' where node = 'n8'")?;
    fails(&lab, &["web", &url], "several time zones (n7: Europe/Berlin, n8: UTC); choose one with --tz")?;
    fails(
        &lab,
        &["web", &url, "--tz", "UTC"],
        "begin on several days (n7: 15, n8: 3); choose one with --billing-day",
    )?;
    fails(&lab, &["web", &url, "--tz", "Mars/Base", "--billing-day", "1"], "cannot use --tz")?;
    let socket = lab.path("web.sock");
    let web = serve(&lab, &socket, &[&url, "--tz", "UTC", "--billing-day", "1"])?;
    for (document, command) in IN_CALENDAR {
        let command: Vec<&str> = command.split(' ').chain(["--store", &url, "--format", "json"]).collect();
        let (served, printed) = (get(&socket, &format!("/api/v1/{document}"))?, lab.run_ok(&command)?);
        ensure!(served == printed, "{document}:\n{served}\n{printed}");
    }
    for document in ["overview", "series?by=day", "months", "containers", "quotas"] {
        get(&socket, &format!("/api/v1/{document}"))?;
    }
    // The ids are those of each node: the same id on both is two containers on the first page, too.
    let overview: Value = get(&socket, "/api/v1/overview")?.parse()?;
    let largest = overview["containers"].as_array().context("containers")?.iter();
    let mut largest: Vec<_> = largest.map(|row| (&row["container"], &row["total"]["bytes"])).collect();
    largest.sort_by_key(|row| row.0.to_string());
    let [(one, of_one), (two, of_two), (three, of_three), (four, of_four)] = largest[..] else {
        bail!("not four containers: {overview:#}");
    };
    ensure!([one, two, three, four] == ["n7/101", "n7/102", "n8/101", "n8/102"], "{overview:#}");
    ensure!((of_one, of_two) == (of_three, of_four) && of_one.as_u64() > Some(0), "{overview:#}");
    ensure!(overview["container_count"] == 4, "{overview:#}");
    let months: Value = get(&socket, "/api/v1/months")?.parse()?;
    ensure!(months["zone"] == "UTC" && months["billing_day"] == 1, "{months:#}");
    ensure!(web.terminate(PATIENCE)?.success());
    // Of nodes that agree, and of a ledger, it is another calendar than theirs.
    let file = lab.state_dir().join("ledger.sqlite");
    let file = file.to_str().context("a path")?;
    for source in [&[url.as_str(), "--node", "n7"][..], &[file]] {
        let socket = lab.path("one.sock");
        let web = serve(&lab, &socket, &[source, &["--tz", "UTC", "--billing-day", "1"]].concat())?;
        let printed = lab.run_ok(&[
            "report",
            "--by",
            "month",
            "--tz",
            "UTC",
            "--billing-day",
            "1",
            "--format",
            "json",
        ])?;
        let served = get(&socket, "/api/v1/report?by=month")?;
        ensure!(served == printed, "{source:?}:\n{served}\n{printed}");
        ensure!(web.terminate(PATIENCE)?.success());
    }
    Ok(())
}
