<?php

// Loads the SDK, with Composer or without. In a worker it should come before the application's own code: what is registered
// first at PHP's shutdown runs first, and a call that ends by exit() must not run what the worker has registered for itself.

declare(strict_types=1);

spl_autoload_register(static function (string $class): void {
    $file = __DIR__ . '/src/' . strtr(substr($class, strlen('Wootz\\')), '\\', '/') . '.php';
    if (str_starts_with($class, 'Wootz\\') && is_file($file)) {
        require $file;
    }
});

if (PHP_SAPI === 'cli' && getenv('WOOTZ_LISTEN') !== false) {
    Wootz\Application::prepare();
}
