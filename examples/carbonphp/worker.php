<?php
// Lets wootz run a CarbonPHP application's two callbacks as they are, each call in a process of its own.

require __DIR__ . '/../../sdk/php/autoload.php'; // first, before the application's own code
require __DIR__ . '/carbonphp.php';              // in a site: require 'vendor/autoload.php';
require __DIR__ . '/index.php';

use CarbonPHP\Programs\WebSocket;
use CarbonPHP\WebSocket\WsUserConnectionRelationship;
use Wootz\{Application, Connection};

Application::run(
    startApplication: static function (string $uri, Connection $connection): string {
        session_start(); // CarbonPHP resumes the session before a call
        $information = new WsUserConnectionRelationship(
            userId: $connection->user ?? '',
            userPipe: null, // wootz has the browser's socket and its pipe; what a call prints gets there
            userSocket: null,
            sessionId: session_id(),
            headers: $connection->headers,
            port: (string) $connection->port,
            ip: $connection->ip,
        );
        ob_start();
        (WebSocket::$startApplicationCallback)($uri, $information);
        return trim(ob_get_clean());
    },
    validateUser: WebSocket::$validateUserCallback,
    isolate: true,
);
