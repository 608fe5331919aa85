<?php
// A cart that is the same in all tabs: whoever adds something has wootz ask for /cart again, as that user, for each of their tabs.
require __DIR__ . '/../../sdk/php/autoload.php';
session_start(['cookie_httponly' => true, 'cookie_samesite' => 'Lax']);
if (($_SERVER['HTTP_WOOTZ_EVENT'] ?? '') === 'validate') exit($_SESSION['user'] ?? ''); // wootz asks who connects

switch (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) {
    case '/cart':
        foreach ($_SESSION['cart'] ?? [] as $item => $count) echo '<li>', $count, ' × ', htmlspecialchars($item), '</li>';
        exit;
    case '/add':
        $item = (string) filter_input(INPUT_POST, 'item');
        $_SESSION['cart'][$item] = ($_SESSION['cart'][$item] ?? 0) + 1;
        session_write_close(); // before anybody else reads it
        Wootz\Push::request($_SESSION['user'], '/cart');
        exit;
    case '/login': // an example: real logins ask for a password
        session_regenerate_id(true);
        $_SESSION['user'] = (string) filter_input(INPUT_POST, 'user');
        header('Location: /', true, 303);
        exit;
} ?>
<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>A cart in all tabs</title>
<style>:root { color-scheme: light dark } body { font: 1rem/1.6 system-ui; max-width: 36rem; margin: 2rem auto; padding: 0 1rem }</style>
<h1>Cart of <?= htmlspecialchars($_SESSION['user'] ?? 'nobody') ?></h1>
<form method="post" action="/login"><input name="user" value="alice" aria-label="User"> <button>Log in</button></form>
<p><button data-item="tea">Add tea</button> <button data-item="cake">Add cake</button> <span id="state">connecting</span></p>
<ul id="cart"></ul><p id="news" aria-live="polite"></p>
<script>
const socket = new WebSocket(`ws://${location.hostname}:${new URLSearchParams(location.search).get('port') ?? 8888}/`);
const show = (id, text) => { document.getElementById(id).textContent = text; };
socket.onopen = () => { show('state', 'connected'); socket.send('/cart'); };
socket.onclose = () => show('state', 'not connected: is wootz running?');
socket.onmessage = ({ data }) => {
  if (data.startsWith('<li>')) document.getElementById('cart').innerHTML = data; // our own page's HTML
  else show('news', data); // what others push: wootz push --user alice 'Free delivery today'
};
for (const button of document.querySelectorAll('[data-item]'))
  button.onclick = () => fetch('/add', { method: 'POST', body: new URLSearchParams({ item: button.dataset.item }) });
</script>
