<?php
// Lets the command line PHP see a request as a web server's PHP does: `php -d auto_prepend_file=prepend.php index.php`. The command
// line leaves $_GET and $_COOKIE empty and calls the script by its path; after this file session_start() resumes the session
// of the browser's own cookie. A message that is no URI is not a form: read it from php://stdin (php://input is empty here).
if (PHP_SAPI !== 'cli') return; // php -S, Apache and FPM do it themselves

(function (): void {
    $script = $_SERVER['SCRIPT_FILENAME'];
    $_SERVER['DOCUMENT_ROOT'] = dirname(realpath($script));
    $_SERVER['SCRIPT_FILENAME'] = realpath($script);
    $_SERVER['SCRIPT_NAME'] = $_SERVER['PHP_SELF'] = '/' . basename($script);
    $_SERVER['REQUEST_URI'] ??= '/';
    if ($_SERVER['REQUEST_URI'][0] !== '/') $_SERVER['REQUEST_URI'] = '/' . $_SERVER['REQUEST_URI']; // a message `count` is /count

    parse_str($_SERVER['QUERY_STRING'] ?? '', $_GET);
    $_POST = $_FILES = [];

    // As PHP reads cookies: the first of equal names counts, and only the value is decoded, a plus remaining a plus.
    $_COOKIE = [];
    foreach (explode(';', $_SERVER['HTTP_COOKIE'] ?? '') as $pair) {
        [$name, $value] = explode('=', ltrim($pair), 2) + [1 => ''];
        $literal = ['&' => '%26', '+' => '%2B', '%' => '%25'];
        parse_str(strtr($name, $literal) . '=' . strtr($value, ['%' => '%'] + $literal), $cookie);
        $_COOKIE += $cookie;
    }
    $_REQUEST = $_GET;
})();
