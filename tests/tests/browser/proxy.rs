//! The page behind Debian's nginx, as docs/web.md describes it: under a path, with a password, and with a token.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use traffic_tests::browser::Browser;
use traffic_tests::check::eventually;
use traffic_tests::process::Process;

use crate::site::{PAGE, Site, rows};

const TOKEN: &str = "correct-horse-battery-staple-0123456789";
/// `trafctl:secret`, as `openssl passwd -apr1` and `htpasswd` write it.
const PASSWORDS: &str = "trafctl:{PLAIN}secret\n";
const BEHIND: &str = "http://trafctl:secret@127.0.0.1:8080/trafctl/";

/// The `location` of docs/web.md, word for word.
fn documented() -> Result<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/web.md"))?;
    let (_, rest) = text.split_once("```text\n").context("docs/web.md has no nginx configuration")?;
    Ok(rest.split_once("```").context("its end")?.0.to_owned())
}

#[test]
fn the_documented_nginx_adds_a_path_and_a_password() -> Result<()> {
    let site = Site::new("web-nginx", "")?;
    let daemon = site.start()?;
    site.send(20)?;
    site.settled()?;
    let passwords = site.lab.write("passwords", PASSWORDS)?;
    let location = documented()?.replace("/etc/nginx/trafctl.passwords", &passwords.to_string_lossy());
    let directory = site.lab.path("");
    let directory = directory.display();
    let configuration = site.lab.write(
        "nginx.conf",
        &format!(
            "daemon off; user root; pid {directory}/nginx.pid; error_log {directory}/nginx.log;\n\
             events {{}}\nhttp {{\naccess_log off;\nclient_body_temp_path {directory}/body;\n\
             proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;\n\
             uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;\n\
             server {{\nlisten 127.0.0.1:8080;\n{location}\n}}\n}}\n"
        ),
    )?;
    let mut nginx = site.lab.host().command("nginx");
    nginx.arg("-c").arg(&configuration).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let nginx = Process::spawn(&mut nginx)?;
    eventually("nginx", || Ok(site.curl(BEHIND).is_ok()))
        .with_context(|| fs::read_to_string(site.lab.path("nginx.log")).unwrap_or_default())?;
    let refused = site.curl(&BEHIND.replace("trafctl:secret@", "")).unwrap_err().to_string();
    ensure!(refused.contains("401"), "{refused}");

    let browser = Browser::start(site.lab.host())?;
    browser.open(BEHIND)?;
    browser.wait("document.getElementById('connection').textContent === 'Live'")?;
    // The stream passes nginx at once, not when a buffer is full.
    browser.wait("document.querySelector('.tile dd').textContent.trim() !== '\u{2013}'")?;
    ensure!(!rows(&browser, "Largest containers")?.is_empty());
    browser.run("document.querySelector('[data-key=\"nav containers\"]').click()")?;
    browser.wait("document.querySelectorAll('tbody tr').length >= 2")?;
    browser.is_quiet("http://127.0.0.1:8080/trafctl/")?;
    ensure!(nginx.terminate(Duration::from_secs(10))?.success());
    ensure!(daemon.terminate(Duration::from_secs(10))?.success());
    Ok(())
}

#[test]
fn a_token_is_asked_for_and_kept_out_of_addresses() -> Result<()> {
    let site = Site::new("web-token", "token_file = \"{lab}\"")?;
    let file = site.lab.write("token", &format!("{TOKEN}\n"))?;
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let configuration = fs::read_to_string(site.lab.config())?;
    site.lab.configure(&configuration.replace("{lab}", &file.to_string_lossy()))?;
    let daemon = site.start()?;
    site.send(20)?;
    site.settled()?;
    let browser = Browser::start(site.lab.host())?;
    browser.open(PAGE)?;
    browser.wait("document.activeElement.id === 'token'")?;
    browser.is_accessible()?;
    let enter = |token: &str| {
        browser.run(&format!(
            "const box = document.getElementById('token'); box.value = '{token}'; box.form.requestSubmit()"
        ))
    };
    enter("wrong")?;
    browser.wait("document.getElementById('notices').innerText.includes('The token was refused')")?;
    enter(TOKEN)?;
    browser.wait("document.getElementById('connection').textContent === 'Live'")?;
    browser.wait("document.querySelector('.tile dd').textContent.trim() !== '\u{2013}'")?;
    ensure!(browser.text("document.cookie")?.is_empty());
    let requests = browser.is_quiet_but_for(PAGE, "401 (Unauthorized)")?;
    ensure!(requests.iter().all(|url| !url.contains(TOKEN)), "{requests:#?}");
    // A file is fetched with the token, and handed to the browser from memory.
    browser.run("document.querySelector('a[download]').click()")?;
    browser
        .wait("performance.getEntriesByType('resource').some((one) => one.name.includes('format=csv'))")?;
    ensure!(daemon.terminate(Duration::from_secs(10))?.success());
    Ok(())
}
