// Sessions that one connection has saved are read by another one.
import java.util.function.Supplier;
import org.springframework.data.redis.connection.lettuce.LettuceConnectionFactory;
import org.springframework.session.Session;
import org.springframework.session.SessionRepository;
import org.springframework.session.data.redis.RedisSessionRepository;
import org.springframework.session.data.redis.config.ConfigureNotifyKeyspaceEventsAction;

public class Test {
    static void check(String what, Object got, Object expected) {
        if (!expected.equals(got)) throw new AssertionError(what + ": " + got + " instead of " + expected);
    }

    static <S extends Session> String saved(SessionRepository<S> sessions, int number) {
        S session = sessions.createSession();
        session.setAttribute("number", number);
        sessions.save(session);
        return session.getId();
    }

    static <S extends Session> void readBack(SessionRepository<S> sessions, SessionRepository<S> others) {
        for (int number = 0; number < 60; number++) {
            String id = saved(sessions, number);
            S found = others.findById(id);
            check("an attribute", found.getAttribute("number"), number);
            found.setAttribute("more", "x");
            others.save(found);
            check("an attribute of the other", sessions.findById(id).getAttribute("more"), "x");
            if (number % 3 == 0) {
                others.deleteById(id);
                check("a session that is over", sessions.findById(id) == null, true);
            }
        }
    }

    static <S extends Session> String renamed(SessionRepository<S> sessions) {
        S session = sessions.findById(saved(sessions, 7));
        String old = session.getId(), id = session.changeSessionId();
        sessions.save(session);
        check("the old id", sessions.findById(old) == null, true);
        check("the new id", sessions.findById(id).getAttribute("number"), 7);
        return "it works";
    }

    static void refused(String command, Supplier<String> attempt) {
        try {
            System.out.println("refused: " + command + ": " + attempt.get());
        } catch (RuntimeException error) {
            Throwable cause = error;
            while (cause.getCause() != null) cause = cause.getCause();
            System.out.println("refused: " + command + ": " + cause.getMessage());
        }
    }

    public static void main(String[] arguments) {
        LettuceConnectionFactory one = Sessions.connect(System.getenv("REDIS_URL")), two = Sessions.connect(System.getenv("REDIS_URL"));
        readBack(Sessions.spread(one), Sessions.spread(two));
        readBack(Sessions.together(one), Sessions.together(two));
        RedisSessionRepository together = Sessions.together(one);
        for (int number = 0; number < 20; number++) renamed(together);
        for (int number = 0; number < 40; number++) renamed(Sessions.spread(one));
        LettuceConnectionFactory defaults = Sessions.connect(System.getenv("DEFAULTS_URL"));
        refused("RENAME", () -> {
            // Both ids are on one shard in one of three cases.
            for (int number = 0; number < 40; number++) renamed(Sessions.spread(defaults));
            return "it works";
        });
        defaults.destroy();
        // What the indexed repository asks for when it starts.
        new ConfigureNotifyKeyspaceEventsAction().configure(one.getConnection());
        new ConfigureNotifyKeyspaceEventsAction().configure(two.getConnection());
        one.destroy();
        two.destroy();
    }
}
