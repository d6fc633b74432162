// Spring Session with its default repository, over Lettuce. The settings of memstore's pool, each for one of the two ways below:
//
//     rename_across_shards: true
//     hash_tag: "{}"
//
import java.net.URI;
import org.springframework.data.redis.connection.lettuce.LettuceConnectionFactory;
import org.springframework.data.redis.core.RedisTemplate;
import org.springframework.data.redis.serializer.RedisSerializer;
import org.springframework.session.data.redis.RedisSessionRepository;

public class Sessions {
    static LettuceConnectionFactory connect(String url) {
        URI address = URI.create(url);
        LettuceConnectionFactory factory = new LettuceConnectionFactory(address.getHost(), address.getPort());
        factory.start();
        return factory;
    }

    /** Sessions on all shards. changeSessionId, which Spring Security does as users log in, renames a key, whose new name may be of another
     *  shard: without rename_across_shards the session has to be copied, by sessionFixation(fixation -> fixation.migrateSession()). */
    static RedisSessionRepository spread(LettuceConnectionFactory factory) {
        RedisTemplate<String, Object> template = new RedisTemplate<>();
        template.setKeySerializer(RedisSerializer.string());
        template.setHashKeySerializer(RedisSerializer.string());
        template.setConnectionFactory(factory);
        template.afterPropertiesSet();
        return new RedisSessionRepository(template);
    }

    /** All sessions on one shard, where their ids can change without that setting: spring.session.redis.namespace={spring:session} */
    static RedisSessionRepository together(LettuceConnectionFactory factory) {
        RedisSessionRepository sessions = spread(factory);
        sessions.setRedisKeyNamespace("{spring:session}");
        return sessions;
    }
}
