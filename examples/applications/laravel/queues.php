<?php
// Laravel: queues, cache and locks, with predis. The settings of memstore's pool:
//
//     hash_tag: "{}"
//     transactions: per-shard
//
// apt-get install php-cli php-predis php-illuminate-queue php-illuminate-redis php-illuminate-cache, then REDIS_URL=redis://... php work.php
require_once 'Illuminate/Queue/autoload.php';
require_once 'Illuminate/Redis/autoload.php';
require_once 'Illuminate/Cache/autoload.php';
require_once 'Predis/autoload.php';

use Illuminate\Cache\RedisStore;
use Illuminate\Cache\Repository;
use Illuminate\Container\Container;
use Illuminate\Queue\Capsule\Manager;
use Illuminate\Redis\RedisManager;

// A queue has four keys, which its scripts need on one shard: the name of the queue in braces makes it one.
const QUEUES = ['{mails}', '{images}', '{reports}', '{payments}', '{searches}', '{exports}'];

function redis($url)
{
    return new RedisManager(new Container, 'predis', ['default' => ['url' => $url, 'read_write_timeout' => 60]]);
}

function queue($redis)
{
    $container = new Container;
    $container->instance('redis', $redis);
    $manager = new Manager($container);
    $manager->addConnection(['driver' => 'redis', 'connection' => 'default', 'queue' => QUEUES[0], 'retry_after' => 90, 'block_for' => 1]);
    return $manager->getConnection();
}

function cache($redis)
{
    return new Repository(new RedisStore($redis, 'cache:'));
}

class Square
{
    public function fire($job, $data)
    {
        $store = redis(getenv('REDIS_URL'))->connection();
        $store->incr("{$data['number']}:executed:{$job->getQueue()}");
        $job->delete();
        $store->lpush('squares', [$data['number'] ** 2]);
    }
}
