//! nft sets: the output of `nft list set` or `nft list ruleset`, or a file of nft commands.

use super::collector::Collector;

/// A token and its line.
type Token<'a> = (usize, &'a str);

/// Reads the elements of the sets, or of the named one. All else is left out.
pub(super) fn read(text: &str, wanted: Option<&str>, collector: &mut Collector) {
    let tokens = tokens(text);
    let mut set = String::new();
    let mut at = 0;
    while let Some(&(_, word)) = tokens.get(at) {
        let next = |ahead: usize| tokens.get(at + ahead).map_or("", |(_, token)| *token);
        match word {
            "set" | "map" if next(2) == "{" => {
                next(1).clone_into(&mut set);
                at += 3;
            }
            "elements" if next(1) == "=" && next(2) == "{" => {
                at = elements(&tokens, at + 3, (&set, wanted), collector);
            }
            "define" if next(2) == "=" && next(3) == "{" => {
                let name = next(1).to_owned();
                at = elements(&tokens, at + 4, (&name, wanted), collector);
            }
            // add element FAMILY TABLE SET { ... }, where the family may be left out.
            // Whoever takes elements away from a list must not bill them with it.
            "delete" | "destroy" if next(1) == "element" => {
                let message =
                    "the command removes elements of a set; remove it, and the elements from the list";
                collector.refuse(tokens[at].0, message);
                at += 2;
            }
            "element" => {
                let brace = (2..=4).find(|&ahead| next(ahead) == "{");
                match brace {
                    Some(ahead) => {
                        let name = next(ahead - 1).to_owned();
                        at = elements(&tokens, at + ahead + 1, (&name, wanted), collector);
                    }
                    None => at += 1,
                }
            }
            _ => at += 1,
        }
    }
}

/// Reads elements up to the closing brace. Returns the index behind it.
fn elements(
    tokens: &[Token<'_>],
    start: usize,
    set: (&str, Option<&str>),
    collector: &mut Collector,
) -> usize {
    let mut element: Vec<Token<'_>> = Vec::new();
    for (at, &(line, token)) in tokens.iter().enumerate().skip(start) {
        match token {
            "," => take(&std::mem::take(&mut element), set, collector),
            "}" => {
                take(&element, set, collector);
                return at + 1;
            }
            _ => element.push((line, token)),
        }
    }
    let line = tokens.last().map_or(0, |(line, _)| *line);
    collector.refuse(line, "the elements do not end with a brace; get the file again, it was cut short");
    tokens.len()
}

fn take(element: &[Token<'_>], (set, wanted): (&str, Option<&str>), collector: &mut Collector) {
    let Some(&(line, _)) = element.first() else { return };
    let words: Vec<&str> = element.iter().map(|(_, token)| *token).collect();
    let end = words.iter().position(|word| is_attribute(word)).unwrap_or(words.len());
    if words.contains(&":") {
        collector.refuse(line, "the element is of a map, not of a set of networks; leave it out");
    } else if let Some(range) = collector.read(line, &words[..end]) {
        collector.take_of_set(set, wanted, range);
    }
}

/// What nft prints behind an element.
fn is_attribute(word: &str) -> bool {
    ["timeout", "expires", "counter", "comment", "limit"].contains(&word)
}

/// Words, braces and commas with their lines. Text in quotation marks is one token; `#` begins a comment.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let end = match first {
                '#' => break,
                '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
                '{' | '}' | ',' | '=' | ';' => 1,
                _ => rest.find(|c: char| c.is_whitespace() || "{},=;\"#".contains(c)).unwrap_or(rest.len()),
            };
            tokens.push((at + 1, &rest[..end]));
            rest = rest[end..].trim_start();
        }
    }
    tokens
}
