<?php
// A CarbonPHP application's two callbacks, as `php index.php websocket` runs them there. Nothing in this file knows of wootz.

use CarbonPHP\Programs\WebSocket;
use CarbonPHP\WebSocket\WsUserConnectionRelationship;

/** The application itself: routes, and whatever they print. */
function startApplication(string $uri): void
{
    match (trim(strtok($uri, '?'), '/')) {
        'count' => print 'count ' . ($_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1) . PHP_EOL,
        'login/ann' => print 'welcome, ' . ($_SESSION['id'] = 'ann') . PHP_EOL,
        'fatal' => missing_function(),
        'exit' => exit('goodbye'),
        default => print "No route was matched for $uri" . PHP_EOL,
    };
}

WebSocket::$startApplicationCallback = static function (string $uri, WsUserConnectionRelationship $information): void {
    if ($uri === '/whoami') {
        echo ($information->userId ?: 'a guest') . " from $information->ip:$information->port by {$information->headers['User-Agent']}";
        return;
    }
    startApplication($uri);
};

WebSocket::$validateUserCallback = static function (string $ip, int $port): string {
    session_start();
    return (string) ($_SESSION['id'] ?? '');
};
