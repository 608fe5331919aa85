<?php
// An ordinary PHP application with a session and a login: `php -S` serves it to browsers, wootz runs the same file per message.
const USERS = ['alice' => 'wonderland', 'bob' => 'builder']; // an example: real passwords are stored by password_hash()

session_start(['cookie_httponly' => true, 'cookie_samesite' => 'Lax']);
if (($_SERVER['WOOTZ_EVENT'] ?? '') === 'validate') exit($_SESSION['user'] ?? ''); // only asked for with provider = "application"

switch (strtok($_SERVER['REQUEST_URI'], '?')) {
    case '/count':
        exit('count ' . ($_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1));
    case '/whoami':
        exit('you are ' . ($_SESSION['user'] ?? 'a guest') . ', served by ' . PHP_SAPI . ' in process ' . getmypid());
    case '/login':
        $user = (string) filter_input(INPUT_POST, 'user');
        if (hash_equals(USERS[$user] ?? random_bytes(8), (string) filter_input(INPUT_POST, 'password'))) {
            session_regenerate_id(true);
            $_SESSION['user'] = $user;
        }
        header('Location: /', true, 303);
        exit;
    case '/logout':
        session_destroy();
        header('Location: /', true, 303);
        exit;
} ?>
<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>wootz and PHP</title>
<style>:root { color-scheme: light dark } body { font: 1rem/1.6 system-ui; max-width: 36rem; margin: 2rem auto; padding: 0 1rem } pre { white-space: pre-wrap }</style>
<h1>Hello, <?= htmlspecialchars($_SESSION['user'] ?? 'guest') ?></h1>
<form method="post" action="/login"><input name="user" value="alice" aria-label="User">
<input name="password" type="password" autocomplete="current-password" value="wonderland" aria-label="Password"><button>Log in</button>
<button formaction="/logout">Log out</button></form>
<p><button data-uri="/count">/count</button> <button data-uri="/whoami">/whoami</button></p><pre id="log" aria-live="polite"></pre>
<script>
const log = (line) => document.getElementById('log').append(line + '\n');
const port = new URLSearchParams(location.search).get('port') ?? 8888;
const socket = new WebSocket(`ws://${location.hostname}:${port}/`);
socket.onopen = () => log('connected');
socket.onmessage = (event) => log('← ' + event.data);
socket.onclose = (event) => log(`closed, ${event.code}. Is wootz running?`);
for (const button of document.querySelectorAll('[data-uri]')) button.onclick = () => socket.send(button.dataset.uri);
</script>
