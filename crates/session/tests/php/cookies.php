<?php
// Says what PHP makes of the cookies: the id that its session has taken, or that there was none, or one that it has not taken.
session_save_path($_SERVER['SESSIONS']);
$name = session_name();
$sent = $_COOKIE[$name] ?? null;
$began = @session_start();
$taken = $began && is_string($sent) && session_id() === $sent;
if (session_status() === PHP_SESSION_ACTIVE) { session_destroy(); }
echo match (true) { $taken => "id $sent", is_string($sent) && $sent !== '' => 'malformed', $began => 'none', default => 'no session' };
