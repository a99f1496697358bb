//! The one page.

use std::fmt::Write as _;

use crate::app::Links;

/// All links, and a form for a new one.
pub(crate) fn list(links: &Links, problem: Option<&str>) -> String {
    // No lock is held while this goes through the map, so it is sorted, and as fresh as each entry.
    let mut rows: Vec<_> = links.iter().collect();
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut table = String::new();
    for (name, link) in rows {
        let (url, visits) = (escape(&link.url), link.visits);
        // Names need no escape: the program has checked or made them.
        let _ = write!(
            table,
            r#"<tr><td><a href="/{name}">{name}</a></td><td>{url}</td><td>{visits}</td></tr>"#
        );
    }
    let problem = problem.map_or_else(String::new, |problem| {
        format!(r#"<p class="problem" role="alert">{}</p>"#, escape(problem))
    });
    format!(
        r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Short links</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem }}
form {{ display: flex; gap: .5rem }}
input {{ font: inherit; padding: .3rem .5rem; flex: 1 }}
input[name=url] {{ flex: 3 }}
button {{ font: inherit; padding: .3rem 1rem }}
table {{ width: 100%; border-collapse: collapse; margin-top: 1.5rem }}
th, td {{ text-align: left; padding: .3rem .5rem; border-bottom: 1px solid #ccc; overflow-wrap: anywhere }}
.problem {{ color: #a00 }}
</style>
<h1>Short links</h1>
<form method="post" action="/links">
<input name="url" type="text" placeholder="https://example.com/a/long/address" aria-label="Address" required>
<input name="name" type="text" placeholder="name (optional)" aria-label="Name">
<button>Shorten</button>
</form>
{problem}
<table>
<thead><tr><th>Name</th><th>Leads to</th><th>Visits</th></tr></thead>
<tbody>{table}</tbody>
</table>
</html>
"#
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
