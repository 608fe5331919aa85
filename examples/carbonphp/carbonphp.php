<?php
// Stands in for CarbonPHP, so that the example needs nothing installed: the two names that the application's callbacks use.

namespace CarbonPHP\Programs {
    abstract class WebSocket
    {
        /** @var callable|null */
        public static mixed $startApplicationCallback = null;
        /** @var callable|null */
        public static mixed $validateUserCallback = null;
    }
}

namespace CarbonPHP\WebSocket {
    class WsUserConnectionRelationship
    {
        public function __construct(
            public string $userId,
            public mixed $userPipe,
            public mixed $userSocket,
            public string $sessionId,
            public array $headers,
            public string $port,
            public string $ip,
        ) {
        }
    }
}
