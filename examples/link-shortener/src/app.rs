//! What the server does: three routes on a map.

use axum::Form;
use axum::Router;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use persistent_map::PersistentMap;
use persistent_map::sqlite::SqliteBackend;
use serde::{Deserialize, Serialize};

use crate::page;

/// From a short name to where it leads.
pub(crate) type Links = PersistentMap<String, Link, SqliteBackend>;

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) url: String,
    pub(crate) visits: u64,
}

pub(crate) fn router(links: Links) -> Router {
    Router::new()
        .route("/", get(list))
        .route("/links", post(add))
        .route("/{name}", get(follow))
        .with_state(links)
}

async fn list(State(links): State<Links>) -> Html<String> {
    Html(page::list(&links, None))
}

#[derive(Deserialize)]
struct New {
    url: String,
    #[serde(default)]
    name: String,
}

async fn add(State(links): State<Links>, form: Result<Form<New>, FormRejection>) -> Response {
    let Ok(Form(New { url, name })) = form else {
        return refuse(
            &links,
            StatusCode::BAD_REQUEST,
            "Send `url`, and `name` if you like.",
        );
    };
    let (url, name) = (url.trim().to_string(), name.trim().to_string());
    if let Err(problem) = check_url(&url).and_then(|()| check_name(&name)) {
        return refuse(&links, StatusCode::BAD_REQUEST, problem);
    }
    let is_chosen = !name.is_empty();
    loop {
        let name = if is_chosen {
            name.clone()
        } else {
            random_name()
        };
        let link = Link {
            url: url.clone(),
            visits: 0,
        };
        // One step, so of two who want one name at once, one gets it. It returns when the link is on the disk.
        match links.insert_if_absent(name, link).await {
            Ok(None) => return Redirect::to("/").into_response(),
            Ok(Some(_)) if is_chosen => {
                return refuse(&links, StatusCode::CONFLICT, "This name is taken.");
            }
            Ok(Some(_)) => {}
            Err(error) => {
                // For whoever runs the server: it says which file, and what to do.
                eprintln!("a link was not added: {error}");
                let problem = "The link could not be stored. Try again later.";
                return refuse(&links, StatusCode::SERVICE_UNAVAILABLE, problem);
            }
        }
    }
}

async fn follow(State(links): State<Links>, Path(name): Path<String>) -> Response {
    let visit = |link: &mut Link| {
        link.visits += 1;
        link.url.clone()
    };
    match links.update(name.as_str(), visit).await {
        Ok(Some(url)) => Redirect::temporary(&url).into_response(),
        Ok(None) => refuse(&links, StatusCode::NOT_FOUND, "There is no such link."),
        // A visitor need not care whether the visit was counted. Reads go on whatever the disk does.
        Err(error) => {
            eprintln!("a visit was not counted: {error}");
            match links.with(name.as_str(), |link| Redirect::temporary(&link.url)) {
                Some(redirect) => redirect.into_response(),
                None => refuse(&links, StatusCode::NOT_FOUND, "There is no such link."),
            }
        }
    }
}

fn refuse(links: &Links, status: StatusCode, problem: &str) -> Response {
    (status, Html(page::list(links, Some(problem)))).into_response()
}

fn check_url(url: &str) -> Result<(), &'static str> {
    let host = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let is_plain = url.chars().all(|letter| letter.is_ascii_graphic());
    if host.is_none_or(str::is_empty) || !is_plain || url.len() > 2000 {
        return Err(
            "An address begins with http:// or https://, has no spaces, and at most 2000 letters.",
        );
    }
    Ok(())
}

/// None is right too: then one is made.
fn check_name(name: &str) -> Result<(), &'static str> {
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if name.len() > 32 || !is_plain || name == "links" {
        return Err("A name has at most 32 of the letters a to z, 0 to 9 and -.");
    }
    Ok(())
}

fn random_name() -> String {
    std::iter::repeat_with(fastrand::lowercase)
        .take(6)
        .collect()
}
