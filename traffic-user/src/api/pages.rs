//! The files of the web page, which are part of the program. They hold no figures.

use std::{borrow::Cow, collections::BTreeMap, io::Write as _, sync::LazyLock};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use flate2::{Compression, write::GzEncoder};
use rust_embed::Embed;

use crate::api::answers::{Tag, error_answer};

#[derive(Embed)]
#[folder = "web/"]
struct Files;

/// A file as it is served.
struct Page {
    content: Cow<'static, [u8]>,
    compressed: Vec<u8>,
    hash: [u8; 32],
    content_type: &'static str,
}

/// All files by path. Compressed when the first of them is asked for.
static PAGES: LazyLock<BTreeMap<String, Page>> = LazyLock::new(|| {
    let page = |path: Cow<'static, str>| {
        let (file, content_type) = (Files::get(&path)?, content_type(&path)?);
        let (content, hash) = (lean(&path, file.data), file.metadata.sha256_hash());
        Some((path.into_owned(), Page { compressed: gzip(&content), content, hash, content_type }))
    };
    Files::iter().filter_map(page).collect()
});

/// Compresses the files before somebody asks for them.
pub(super) fn prepare() {
    LazyLock::force(&PAGES);
}

/// The type of a file by its name; `None` for one that is not served.
fn content_type(path: &str) -> Option<&'static str> {
    let known = [
        ("html", "text/html; charset=utf-8"),
        ("css", "text/css; charset=utf-8"),
        ("js", "text/javascript; charset=utf-8"),
        ("svg", "image/svg+xml"),
        ("png", "image/png"),
        ("ico", "image/x-icon"),
        ("woff2", "font/woff2"),
        ("json", "application/json"),
        ("txt", "text/plain; charset=utf-8"),
    ];
    let (_, extension) = path.rsplit_once('.')?;
    known.into_iter().find(|(known, _)| *known == extension).map(|(_, kind)| kind)
}

/// Our files without what only their readers need: indentation, comments on lines of their own, and line ends and
/// blanks where nothing depends on them. No line inside a string of ours begins like a comment.
fn lean(path: &str, content: Cow<'static, [u8]>) -> Cow<'static, [u8]> {
    let shorten = match path.rsplit_once('.') {
        Some((_, "js")) => joined_script,
        Some((_, "css")) => squeezed_style,
        Some((_, "html")) => |lines: &[&str]| lines.join("\n"),
        _ => return content,
    };
    if path.starts_with("vendor/") {
        return content;
    }
    let text = String::from_utf8_lossy(&content);
    let mut lines = Vec::new();
    let mut in_comment = false;
    for line in text.lines().map(str::trim) {
        let is_comment = in_comment || line.starts_with("/*");
        in_comment = is_comment && !line.ends_with("*/");
        if !is_comment && !line.is_empty() && !line.starts_with("//") {
            lines.push(line);
        }
    }
    Cow::Owned(shorten(&lines).into_bytes())
}

/// A script on few lines: a line end stays where it may end a statement or a comment.
fn joined_script(lines: &[&str]) -> String {
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        let mut code = squeezed_code(line);
        let next = lines.get(at + 1).copied().unwrap_or_default();
        let goes_on = line.ends_with([';', '{', ',', '(', '[', '=', '?', ':', '>', '|', '&'])
            || next.starts_with(['}', ')', ']', '.', '?', ':'])
            || next.starts_with("&&")
            || next.starts_with("||");
        // A comma after the last of several, and a semicolon after the last statement of a block, are only for those
        // who read and change it. No statement of ours is empty.
        let is_last = line.ends_with(',') && next.starts_with(['}', ')', ']'])
            || line.ends_with(';') && next.starts_with('}');
        if is_last && !line.contains("//") {
            code.to_mut().pop();
        }
        text.push_str(&code);
        if line.contains("//") || !goes_on {
            text.push('\n');
        }
    }
    text
}

/// A line of a script without blanks at its signs. Templates stay as they are. So does a line with a template that
/// goes on or holds another, and one with comments, patterns or other strings than those of double quotes.
fn squeezed_code(line: &str) -> Cow<'_, str> {
    let parts: Vec<&str> = line.split('`').collect();
    let is_whole = |template: &&str| template.matches("${").count() == template.matches('}').count();
    let is_code = |code: &&str| {
        let outside: Vec<&str> = code.split('"').collect();
        let has_whole_strings = outside.len() % 2 == 1 && !code.contains("\\\"");
        // A division has blanks around it, unlike a comment or a pattern.
        let divides_at_most = outside.iter().step_by(2).all(|code| !code.replace(" / ", "").contains('/'));
        has_whole_strings && divides_at_most && !code.contains('\'')
    };
    let is_understood = parts.len() % 2 == 1
        && parts.iter().step_by(2).all(is_code)
        && parts.iter().skip(1).step_by(2).all(is_whole);
    if !is_understood {
        return Cow::Borrowed(line);
    }
    let squeezed =
        |(at, part): (usize, &&str)| if at % 2 == 0 { squeezed_part(part) } else { (*part).to_owned() };
    Cow::Owned(parts.iter().enumerate().map(squeezed).collect::<Vec<_>>().join("`"))
}

/// Code without templates and without blanks at its signs, but for those in strings.
fn squeezed_part(code: &str) -> String {
    /// Signs that end a word or another sign. `a - -b` is not `a--b`.
    const SIGNS: &str = "=,:;?{}()[]<>&|!*\"";
    let mut text = String::new();
    let mut in_string = false;
    let mut characters = code.chars().peekable();
    while let Some(character) = characters.next() {
        in_string ^= character == '"';
        let is_needed = |next: Option<&char>| {
            !text.ends_with(|last| SIGNS.contains(last)) && next.is_none_or(|next| !SIGNS.contains(*next))
        };
        if character != ' ' || in_string || is_needed(characters.peek()) {
            text.push(character);
        }
    }
    text
}

/// A style sheet without blanks and semicolons where none are needed.
fn squeezed_style(lines: &[&str]) -> String {
    let mut text = String::new();
    let mut in_string = false;
    for character in lines.join(" ").chars() {
        in_string ^= character == '"';
        let drops = |last: &[char]| !in_string && text.ends_with(last);
        match character {
            ' ' if drops(&['{', '}', ';', ',', ':', ' ']) => continue,
            '}' if drops(&[';']) => text.truncate(text.len() - 1),
            '{' | '}' | ';' | ',' if drops(&[' ']) => text.truncate(text.len() - 1),
            _ => {}
        }
        text.push(character);
    }
    text
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory cannot fail.
    let _infallible = encoder.write_all(content);
    encoder.finish().unwrap_or_default()
}

/// `/`: the page.
pub(super) async fn get_index(headers: HeaderMap) -> Response {
    file("index.html", &headers)
}

/// Every other path that no document has.
pub(super) async fn get_file(uri: Uri, headers: HeaderMap) -> Response {
    // As it was sent: no file of ours has a name that would be encoded, and not every encoding is text.
    file(uri.path().trim_start_matches('/'), &headers)
}

fn file(path: &str, headers: &HeaderMap) -> Response {
    let Some(page) = PAGES.get(path) else { return nothing_there(path) };
    let compressed = accepts_gzip(headers);
    let tag = Tag::of_content(&page.hash, if compressed { "-gzip" } else { "" });
    if tag.is_known(headers) {
        return tag.not_modified();
    }
    let body =
        if compressed { Body::from(page.compressed.as_slice()) } else { Body::from(page.content.to_vec()) };
    let mut answer = body.into_response();
    let fields = answer.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    fields.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if compressed {
        fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    tag.put_into(&mut answer);
    answer
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        is_gzip
            && !parts
                .any(|part| matches!(part.replace(' ', "").as_str(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

/// The answer for a path that nothing has.
pub(super) fn nothing_there(path: &str) -> Response {
    let path: String = path.chars().take(100).collect();
    let error = format!(
        "there is no /{path}; the page is at /, the metrics are at /metrics, and /api/v1/openapi.json describes all \
         documents"
    );
    error_answer(StatusCode::NOT_FOUND, &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a slow line carries before the page works.
    const MOST_COMPRESSED: usize = 60_000;

    #[test]
    fn the_whole_page_is_small() {
        let sizes: BTreeMap<&str, usize> =
            PAGES.iter().map(|(path, page)| (path.as_str(), page.compressed.len())).collect();
        let all: usize = sizes.values().sum();
        assert!(all <= MOST_COMPRESSED, "{all} bytes: {sizes:#?}");
        assert!(PAGES.contains_key("index.html"));
    }

    #[test]
    fn what_only_readers_need_is_not_served() {
        let lean_text = |path, text: &'static str| {
            String::from_utf8(lean(path, Cow::Borrowed(text.as_bytes())).into_owned()).unwrap()
        };
        let script = "// a\n/** b */\nconst x = 1; // c\n\n/**\n * d\n */\nif (x) {\n  y(\"/* e */\");\n}\n";
        assert_eq!(lean_text("js/a.js", script), "const x = 1; // c\nif(x){y(\"/* e */\")}\n");
        assert_eq!(lean_text("vendor/a.js", script), script);
        let script = "const a = b\nc(\n  d, // e,\n  f\n  ? g : h,\n)\n(i)\n";
        assert_eq!(lean_text("js/a.js", script), "const a=b\nc(d, // e,\nf?g:h)\n(i)\n");
        let script =
            "import { a } from \"b, c\";\nd(\n  \"e = f\",\n  [\n    g,\n  ],\n);\nh = \"\\\"i = j\";\n";
        let squeezed = "import{a}from\"b, c\";d(\"e = f\",[g]);h = \"\\\"i = j\";";
        assert_eq!(lean_text("js/a.js", script), squeezed);
        let script = "let { a, b } = c ? [d] : e - -f;\ng = { h: (i) => j };\nk = \"a = b\" + c / d;\n";
        let squeezed = "let{a,b}=c?[d]:e - -f;g={h:(i)=>j};k=\"a = b\"+ c / d;";
        assert_eq!(lean_text("js/a.js", script), squeezed);
        let script = "a = `b, ${c} = d` ? e : `f : g` + \"h = i\";\nreturn `j = ${k}`;\n";
        let squeezed = "a=`b, ${c} = d`?e:`f : g` +\"h = i\";return `j = ${k}`;";
        assert_eq!(lean_text("js/a.js", script), squeezed);
        // What holds another template, or a sign that looks like the end of one, is left alone.
        for line in [
            "a = `b${c ? `d = ${e}` : \"\"}`;",
            "a = `b = ${",
            "a = \"` b = c\";",
            "a = 'b = c' + `d`;",
            "a = /b = c/;",
        ] {
            assert_eq!(lean_text("js/a.js", line), line);
        }
        let style = "/* a\n   b */\nb :is(c, d) {\n  e: f g;\n  h: \"; }  x\";\n}\n@media (i: 1px) {\n  j { k: l\n m; }\n}\n";
        let squeezed = "b :is(c,d){e:f g;h:\"; }  x\"}@media (i:1px){j{k:l m}}";
        assert_eq!(lean_text("a.css", style), squeezed);
        assert_eq!(lean_text("a.html", "<a>\n  <b> </b>\n</a>\n"), "<a>\n<b> </b>\n</a>");
    }

    #[test]
    fn every_file_has_a_type_and_asks_for_nothing_from_elsewhere() {
        // Licences are part of the program, and no page asks for them.
        for path in Files::iter().filter(|path| !path.ends_with("/LICENSE")) {
            assert!(content_type(&path).is_some(), "{path} would not be served");
        }
        for (path, page) in PAGES.iter().filter(|(path, _)| path.ends_with(".html")) {
            let text = String::from_utf8_lossy(&page.content);
            for forbidden in ["<style", " style=", "javascript:", " onclick=", "=\"http", "=\"//", "=\"/"] {
                assert!(!text.contains(forbidden), "{path} has {forbidden}");
            }
        }
    }

    #[test]
    fn the_browser_says_whether_it_takes_gzip() {
        let takes = |value: &str| {
            accepts_gzip(&HeaderMap::from_iter([(
                header::ACCEPT_ENCODING,
                HeaderValue::from_str(value).unwrap(),
            )]))
        };
        assert!(takes("gzip, deflate, br") && takes("br;q=1.0, GZIP;q=0.8"));
        assert!(!takes("br") && !takes("gzip;q=0") && !takes("gzip; q=0.0") && !takes("xgzip"));
    }
}
