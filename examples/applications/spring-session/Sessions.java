// Spring Session with its default repository, over Lettuce. The setting of memstore's pool, for the second of the two ways below:
//
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

    /** Sessions on all shards. An application that logs users in has to copy a session to its new id, as Spring Security does with
     *  sessionFixation(fixation -> fixation.migrateSession()): changeSessionId renames its key, which stays on its shard. */
    static RedisSessionRepository spread(LettuceConnectionFactory factory) {
        RedisTemplate<String, Object> template = new RedisTemplate<>();
        template.setKeySerializer(RedisSerializer.string());
        template.setHashKeySerializer(RedisSerializer.string());
        template.setConnectionFactory(factory);
        template.afterPropertiesSet();
        return new RedisSessionRepository(template);
    }

    /** All sessions on one shard, where their ids can change: spring.session.redis.namespace={spring:session} */
    static RedisSessionRepository together(LettuceConnectionFactory factory) {
        RedisSessionRepository sessions = spread(factory);
        sessions.setRedisKeyNamespace("{spring:session}");
        return sessions;
    }
}
