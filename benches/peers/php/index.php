<?php
// PHP-FPM: the response is finished first, and the script goes on.

function note(string $what): void
{
    $line = sprintf("%s %d\n", $what, (int) (microtime(true) * 1e9));
    file_put_contents($_SERVER['PEER_LOG'], $line, FILE_APPEND);
}

function answer(string $body): void
{
    echo $body;
    fastcgi_finish_request();
}

switch ($_SERVER['DOCUMENT_URI']) {
    case '/plain':
        echo 'ok';
        break;
    case '/defer':
        answer('ok');
        $count = ($count ?? 0) + 1;
        break;
    case '/download':
        answer(str_repeat('x', 20 << 20));
        note('download');
        break;
    case '/waits-then-defers':
    case '/defers-then-waits':
        usleep(300_000);
        answer('ok');
        note(substr($_SERVER['DOCUMENT_URI'], 1));
        break;
    case '/stream':
        for ($index = 0; $index < 20; $index++) {
            usleep(25_000);
            echo str_repeat('x', 64 << 10);
            flush();
        }
        fastcgi_finish_request();
        note('stream');
        break;
    case '/lasts':
        answer('ok');
        note('began');
        usleep(500_000);
        note('finished');
        break;
    case '/fails-first':
        answer('ok');
        throw new RuntimeException('the first one fails, on purpose');
        note('second');
        break;
}
