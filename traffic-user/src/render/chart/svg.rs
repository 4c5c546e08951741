//! A scene as SVG: no script, no style sheet, no reference to anything else.

use std::fmt::Write as _;

use super::{
    palette::Rgb,
    scene::{Anchor, Scene, Shape},
};

/// The document. `description` is what a screen reader says.
pub(super) fn document(scene: &Scene, (title, description): (&str, &str)) -> String {
    let Scene { width, height, shapes } = scene;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} \
         {height}\" role=\"img\" font-family=\"'DejaVu Sans', Verdana, sans-serif\">\n<title>{}</title>\n\
         <desc>{}</desc>\n",
        escaped(title),
        escaped(description)
    );
    for shape in shapes {
        // Writing to a string does not fail.
        let _infallible = match shape {
            Shape::Rect { x, y, width, height, colour, opacity } => {
                let opacity = match opacity {
                    1.0 => String::new(),
                    opacity => format!(" fill-opacity=\"{opacity}\""),
                };
                writeln!(
                    text,
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{}\"{opacity}/>",
                    hex(*colour)
                )
            }
            Shape::Text { x, y, size, anchor, colour, text: words } => {
                let anchor = match anchor {
                    Anchor::Start => "",
                    Anchor::Middle => " text-anchor=\"middle\"",
                    Anchor::End => " text-anchor=\"end\"",
                };
                writeln!(
                    text,
                    "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{}\"{anchor}>{}</text>",
                    hex(*colour),
                    escaped(words)
                )
            }
        };
    }
    text + "</svg>\n"
}

fn hex([red, green, blue]: Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// A text as the content of an element. XML has no way to write control characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_nothing_else() {
        let mut scene = Scene { width: 10.0, height: 5.5, ..Scene::default() };
        scene.text((1.0, 2.0), Anchor::End, (9.0, [1, 2, 255]), "</text><script>\u{1b}&\"");
        scene.veil((0.0, 0.5, 3.0, 4.0), [0, 0, 0], 0.25);
        let text = document(&scene, ("a<b", "c"));
        let read = roxmltree::Document::parse(&text).unwrap();
        let node = |name: &str| read.descendants().find(|node| node.has_tag_name(name)).unwrap();
        assert_eq!(node("text").text(), Some("</text><script>\u{fffd}&\""));
        assert_eq!(node("text").attribute("fill"), Some("#0102ff"));
        assert_eq!(node("title").text(), Some("a<b"));
        assert_eq!(node("rect").attribute("fill-opacity"), Some("0.25"));
        assert!(!read.descendants().any(|node| node.has_tag_name("script")));
    }
}
