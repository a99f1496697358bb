"""Drives the link shortener in a real browser, over a kill: python browser.py PATH_OF_THE_SERVER [PICTURE]

Needs Chromium, its driver, and the package selenium.
"""

import http.server
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait


class Server:
    def __init__(self, program, file, port=0):
        self.process = subprocess.Popen([program, file, str(port)], stdout=subprocess.PIPE, text=True)
        words = self.process.stdout.readline().split()
        self.links, self.url = int(words[0]), words[-1]

    def kill(self):
        self.process.kill()  # SIGKILL
        self.process.wait()


def start_browser(profile):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser")
    for argument in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "window-size=800,600", f"user-data-dir={profile}",
    ):
        options.add_argument(f"--{argument}")
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def where_links_lead():
    """A page to follow a link to, so that nothing beyond this machine is asked."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>The other end</title>")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/a/long/address?of=a%20page"


def add(browser, url, name):
    rows = len(browser.find_elements(By.CSS_SELECTOR, "tbody tr"))
    browser.find_element(By.NAME, "url").send_keys(url)
    browser.find_element(By.NAME, "name").send_keys(name)
    form = browser.find_element(By.TAG_NAME, "form")
    browser.find_element(By.TAG_NAME, "button").click()
    wait = WebDriverWait(browser, 10)
    wait.until(lambda browser: is_gone(form))
    return len(browser.find_elements(By.CSS_SELECTOR, "tbody tr")) - rows


def is_gone(element):
    try:
        element.is_enabled()
        return False
    except Exception:  # Chromium names this in more than one way.
        return True


def table(browser):
    rows = browser.find_elements(By.CSS_SELECTOR, "tbody tr")
    return [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows]


def main(program, picture=None):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "links.db")
        server = Server(program, file)
        browser = start_browser(pathlib.Path(folder, "profile"))
        try:
            far = where_links_lead()
            browser.get(server.url)
            assert add(browser, far, "far") == 1
            assert add(browser, "https://www.rust-lang.org/learn", "rust") == 1
            assert add(browser, "https://docs.rs/tokio/latest/tokio/sync/index.html", "docs") == 1

            # A name that is taken, and an address that is none.
            for url, name in (("https://example.com/", "far"), ("javascript:alert(1)", "bad")):
                assert add(browser, url, name) == 0
                assert browser.find_element(By.CLASS_NAME, "problem").is_displayed()

            browser.get(server.url)
            browser.find_element(By.LINK_TEXT, "far").click()
            WebDriverWait(browser, 10).until(lambda browser: browser.title == "The other end")
            assert browser.current_url == far, browser.current_url

            server.kill()
            port = server.url.rstrip("/").rsplit(":", 1)[1]
            server = Server(program, file, port)
            assert server.links == 3, server.links
            browser.get(server.url)
            assert table(browser) == [
                ["docs", "https://docs.rs/tokio/latest/tokio/sync/index.html", "0"],
                ["far", far, "1"],
                ["rust", "https://www.rust-lang.org/learn", "0"],
            ], table(browser)
            browser.find_element(By.LINK_TEXT, "far").click()
            WebDriverWait(browser, 10).until(lambda browser: browser.title == "The other end")
            if picture:
                browser.get(server.url)
                browser.save_screenshot(picture)
        finally:
            browser.quit()
            server.kill()
    print("added, followed, killed, started again: all links are there")


if __name__ == "__main__":
    main(*sys.argv[1:])
